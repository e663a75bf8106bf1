"""How the numbers of an `lsd-eval` run were made, for its report."""

import argparse
from typing import Any

from ..denoisers.oracle import Oracle
from ..evaluation.comparison import SWEEP_SEED
from ..evaluation.metric_sets import ImageMetrics, MetricSet
from ..evaluation.protocol import hardware, versions
from .evaluation_classes import best_of, described_conditions
from .evaluation_tasks import task_protocol


def precision(denoiser: Any) -> str | None:
    """Precision of the loaded weights; None for an oracle, which has none."""
    return next((str(p.dtype).removeprefix("torch.") for p in denoiser.parameters()), None)


def described_judge(args: argparse.Namespace, metrics: MetricSet) -> str:
    """What judges the samples, and how good it is, as far as that is known."""
    if args.judge:
        return f"{args.judge}, {args.judge_dtype or 'precision as stored'}"
    return metrics.described_judge if isinstance(metrics, ImageMetrics) else "none"


def protocol(
    args: argparse.Namespace, pipeline: Any, metrics: MetricSet, comparison: Any, temperatures: list[float]
) -> dict[str, str]:
    """How the numbers were made, as name -> sentence."""
    dtype = precision(pipeline.denoiser) or "float64, exact"
    where = f"at {args.temperature_nfe} calls" if args.temperature_nfe else "at each number of calls"
    on = "other samples" if args.tasks is None else "the other half of the items"
    chosen = f"{where}, chosen on {on}"
    settings = {"Temperatures": best_of(temperatures, chosen)} | described_conditions(args, pipeline.denoiser, chosen)
    length = comparison.judged[0]["length"]
    what = f"that fill in the lines of {args.infill}" if args.infill else f"of {length} tokens"
    if args.tasks is not None:
        return task_protocol(args, dtype, settings)
    by_oracle = args.oracle is not None or isinstance(pipeline.denoiser, Oracle)
    reference = args.reference or "the model's own teacher, one token a step"
    if isinstance(metrics, ImageMetrics):
        reference = f"{metrics.reference.number} test images; the row: others, through the codebook"
    return {
        "Model": args.model,
        "Samples": f"{args.num_samples} {what} in every row, in batches of {args.batch_size}",
        "Real data": "exact samples of the oracle" if by_oracle and not args.infill else str(reference),
        "Judge": described_judge(args, metrics),
        "Precision": f"network {dtype}; draws float64 with 53-bit uniforms",
        **settings,
        "Seeds": f"judged samples {args.seed} + batch, temperatures {args.seed + SWEEP_SEED} + batch",
        "Intervals": "95 %, 200 bootstrap resamples of whole samples, the reference held fixed",
        "Hardware": hardware(args.device),
        "Versions": versions(),
    }
