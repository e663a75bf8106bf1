"""How the numbers of an `lsd-eval` run were made, for its report."""

import argparse
from typing import Any

from ..denoisers.oracle import Oracle
from ..evaluation.comparison import SWEEP_SEED
from ..evaluation.metric_sets import ImageMetrics, MetricSet
from ..evaluation.protocol import hardware, versions
from .evaluation_classes import best_of, described_conditions
from .evaluation_tasks import described_blocks, described_tasks


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
    number = f"{args.temperature_samples} " if args.temperature_samples else ""
    on = f"{number}other samples" if args.tasks is None else "the other half of the items"
    chosen = f"{where}, chosen on {on}"
    if args.tasks is None:
        judged = _judged_samples(args, pipeline.denoiser, metrics, comparison.judged[0]["length"])
        intervals = "95 %, 200 bootstrap resamples of whole samples, the reference held fixed"
    else:
        number = f"{args.num_samples} answers in every row, in batches of {args.batch_size}"
        judged = {"Tasks": described_tasks(args), "Samples": number, **described_blocks(args)}
        intervals = "95 %: Wilson's; of calls and of swept samplers, 200 bootstrap resamples of whole items"
    return {
        "Model": args.model,
        **judged,
        "Precision": f"network {dtype}; draws float64 with 53-bit uniforms",
        "Temperatures": best_of(temperatures, chosen),
        **described_conditions(args, pipeline.denoiser, metrics, chosen),
        "Seeds": f"judged samples {args.seed} + batch, temperatures {args.seed + SWEEP_SEED} + batch",
        "Intervals": intervals,
        "Hardware": hardware(args.device),
        "Versions": versions(),
    }


def _judged_samples(args: argparse.Namespace, denoiser: Any, metrics: MetricSet, length: int) -> dict[str, str]:
    """Samples, and what they are compared with."""
    what = f"that fill in the lines of {args.infill}" if args.infill else f"of {length} tokens"
    reference = args.reference or "the model's own teacher, one token a step"
    if isinstance(metrics, ImageMetrics):
        reference = f"{metrics.reference.number} test images; the row: others, through the codebook"
    elif (args.oracle is not None or isinstance(denoiser, Oracle)) and not args.infill:
        reference = "exact samples of the oracle"
    return {
        "Samples": f"{args.num_samples} {what} in every row, in batches of {args.batch_size}",
        "Real data": str(reference),
        "Judge": described_judge(args, metrics),
    }
