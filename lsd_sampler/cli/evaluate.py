"""`lsd-eval`: compare samplers of one model at equal network calls, each at its own best temperature."""

import argparse
import lzma
import sys
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from ..scheduling_lsd import LSDScheduler
from ..training.recording import scheduler_in_place
from .common import add_model_arguments, check_output_dir, load_pipeline, load_sampler, positive_int, run


ORACLE_COLUMNS = {
    "sampler": "sampler",
    "nfe": "NFE",
    "forbidden_share": "forbidden",
    "reverse_kl": "reverse KL",
    "reverse_kl_low": "low",
    "reverse_kl_high": "high",
    "bigram_tv": "bigram TV",
    "bigram_entropy": "cond. entropy",
}
TEXT_COLUMNS = {
    "sampler": "sampler",
    "nfe": "NFE",
    "temperature": "temp.",
    "judge_nll": "judge NLL/token",
    "unigram_entropy": "unigram entropy",
    "char_trigram_entropy": "char 3-gram entropy",
    "js_char_3gram": "JS 3-grams",
    "js_char_4gram": "JS 4-grams",
    "js_char_sum_low": "sum low",
    "js_char_sum_high": "sum high",
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lsd-eval", description=__doc__)
    add_model_arguments(parser)
    parser.add_argument("--sampler", nargs="*", default=[], help="folders or Hub ids of learned samplers")
    parser.add_argument(
        "--baselines",
        nargs="*",
        default=["tweedie"],
        help="plain samplers as SOLVER[:ORDER[:SCHEDULE]], for example tweedie or tweedie:halton:cosine",
    )
    parser.add_argument("--nfe", type=positive_int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--num-samples", type=positive_int, default=1024)
    parser.add_argument("--batch-size", type=positive_int, default=64)
    parser.add_argument("--temperatures", type=float, nargs="+", help="default: 1 for oracles, else 0.8 0.9 1.0 1.1")
    parser.add_argument("--judge", help="causal language model: folder or Hub id")
    parser.add_argument("--reference", type=Path, help="held-out text (.txt or .txt.xz); default: teacher samples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="reuse finished rows of --output-dir")
    parser.add_argument("--output-dir", type=Path, default=Path("lsd-eval"))
    return parser


def baseline(text: str, config: dict[str, Any]) -> LSDScheduler:
    """The plain sampler described by SOLVER[:ORDER[:SCHEDULE]]."""
    parts = text.split(":")
    if len(parts) > 3:
        raise ValueError(f"`--baselines` entries have the form SOLVER[:ORDER[:SCHEDULE]], got {text!r}.")
    return LSDScheduler(**config, **dict(zip(("solver", "order", "schedule"), parts, strict=False)))


def make_metrics(args: argparse.Namespace, pipeline: Any) -> tuple[Any, dict[str, Any] | None]:
    """The metric set that fits the model, and the row of real data of the same size."""
    from ..denoisers.markov import MarkovDenoiser
    from ..evaluation.harness import floor_row
    from ..evaluation.metrics import OracleMetrics

    denoiser = pipeline.denoiser
    if isinstance(denoiser, MarkovDenoiser):
        metrics = OracleMetrics(denoiser.transition.cpu())
        real = denoiser.sample(args.num_samples, torch.Generator().manual_seed(args.seed + 1_000_000))
        return metrics, floor_row(metrics, real[:, : args.length or denoiser.length].cpu())
    if args.reference is None:
        print("No `--reference`: the model's own teacher, one token a step, takes its place.", file=sys.stderr)
    return text_metrics(args, pipeline)


def reference_windows(args: argparse.Namespace, pipeline: Any) -> torch.Tensor:
    """Real text, cut into windows and shuffled; without any, samples of the teacher, one token a step."""
    from ..evaluation.harness import text_windows

    length = args.length or pipeline.denoiser.length
    if args.reference is None:
        teacher = LSDScheduler(**pipeline.denoiser.scheduler_config())
        sequences = []
        with scheduler_in_place(pipeline, teacher):
            for first in tqdm(range(0, args.num_samples, args.batch_size), desc="teacher samples", unit="batch"):
                generator = torch.Generator().manual_seed(args.seed + 1_000_000 + first)
                num = min(args.batch_size, args.num_samples - first)
                options = {"length": length, "generator": generator, "output_type": "ids"}
                sequences.append(pipeline(num_samples=num, num_inference_steps=length, **options).sequences.cpu())
        return torch.cat(sequences)
    opener = lzma.open if args.reference.suffix == ".xz" else open
    with opener(args.reference, "rt", encoding="utf-8") as file:
        windows = text_windows(pipeline.tokenizer, str(file.read()), length)
    return windows[torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))]


def text_metrics(args: argparse.Namespace, pipeline: Any) -> tuple[Any, dict[str, Any] | None]:
    """Half of the real text is the reference, the floor comes from the other; of teacher samples all are."""
    from ..evaluation.harness import floor_row
    from ..evaluation.judge import JudgeNLL
    from ..evaluation.metrics import TextMetrics
    from ..evaluation.tokens import decode

    if pipeline.tokenizer is None:
        raise ValueError(f"`--model` {args.model} has no tokenizer, so its samples cannot be compared as texts.")
    judge = JudgeNLL.from_pretrained(args.judge, device=args.device) if args.judge else None
    windows = reference_windows(args, pipeline)
    half = len(windows) // 2 if args.reference else len(windows)
    metrics = TextMetrics(pipeline.tokenizer, judge, decode(pipeline.tokenizer, windows[:half]))
    if len(windows) - half < args.num_samples:
        if args.reference:
            print("Too little reference text for a floor of the same size: it is left out.", file=sys.stderr)
        return metrics, None
    return metrics, floor_row(metrics, windows[half : half + args.num_samples], name="real text")


def command(args: argparse.Namespace) -> None:
    from ..evaluation import report
    from ..evaluation.harness import best_per_sampler, evaluate

    pipeline = load_pipeline(args)
    samplers = {text: baseline(text, pipeline.denoiser.scheduler_config()) for text in args.baselines}
    for name in args.sampler:
        short = Path(name).resolve().name
        samplers[name if short in samplers else short] = load_sampler(name)
    if not samplers:
        raise ValueError("Nothing to compare: give `--sampler` or `--baselines`.")
    if not any(sampler.can_do(steps) for sampler in samplers.values() for steps in args.nfe):
        known = {name: sampler.available_num_inference_steps for name, sampler in samplers.items()}
        raise ValueError(f"No sampler was made for `--nfe` {' '.join(map(str, args.nfe))}; they know {known}.")
    check_output_dir(args.output_dir)
    metrics, floor = make_metrics(args, pipeline)
    is_oracle = metrics.verdict_key == "reverse_kl"
    print(f"Output folder: {args.output_dir}", flush=True)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    rows = evaluate(
        pipeline,
        samplers,
        args.nfe,
        num_samples=args.num_samples,
        metrics=metrics,
        batch_size=args.batch_size,
        temperatures=args.temperatures or ([1.0] if is_oracle else [0.8, 0.9, 1.0, 1.1]),
        seed=args.seed,
        output=args.output_dir / "metrics.jsonl",
        resume=args.resume,
        labels={"model": args.model},
        **({"length": args.length} if args.length else {}),
    )
    best = best_per_sampler(rows, metrics.verdict_key)
    columns = {key: head for key, head in (ORACLE_COLUMNS if is_oracle else TEXT_COLUMNS).items() if key in best[0]}
    table = report.format_table([*best, *([floor] if floor else [])], columns, digits=4)
    (args.output_dir / "table.txt").write_text(table + "\n", encoding="utf-8")
    print(table)
    drawn = ["reverse_kl", "forbidden_share"] if is_oracle else ["js_char_3gram", "js_char_4gram"]
    try:
        report.plot_quality_vs_nfe(best, args.output_dir / "quality_vs_nfe.png", drawn, title=args.model, floor=floor)
    except ImportError:
        print("No plot, as matplotlib is not installed: `pip install lsd_sampler[eval]`.", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    return run(command, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
