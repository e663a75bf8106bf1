"""Compare training methods: samplers for an exact oracle and for a small model of English text, at equal calls.

    python examples/compare_methods.py --output-dir methods-output

No network is needed. Both models come with the repository (`countdown` is a formula), and so does the default sampler
of the second, which `lsd-train` learned with real text. The script prints two tables, and saves samplers, plots and a
few samples side by side. `--quick` does the same on a few samples, to see that it runs.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill
from lsd_sampler.cards.sampler_card import save_sampler
from lsd_sampler.cli.texts import read_texts
from lsd_sampler.evaluation import (
    Comparison,
    Harness,
    JudgeNLL,
    MetricSet,
    OracleMetrics,
    TextMetrics,
    best_per_sampler,
    compare,
    floor_row,
    format_table,
    plot_quality_vs_nfe,
    text_windows,
    write_jsonl,
)
from lsd_sampler.evaluation.columns import headings
from lsd_sampler.evaluation.report import Report
from lsd_sampler.support.afterwards import optional_plot


MODELS = Path(__file__).resolve().parents[1] / "models"
NFE = (4, 8, 16, 32)
METHODS = {
    "lsd": DistillConfig(method="lsd", order="random"),
    "path_kl random": DistillConfig(method="path_kl", order="random"),
    "path_kl halton": DistillConfig(method="path_kl", order="halton"),
}
DEFAULT = DistillConfig()  # what `lsd-train` does without `--method`
TEMPERATURES = (0.6, 0.8, 0.9, 1.0, 1.1)
TEACHER_TEMPERATURES = (0.9, 1.0)
QUICK = {"num_sequences": 2, "oracle_samples": 16, "text_samples": 4, "nfe": (4, 8), "temperatures": (0.9,)}
QUICK_DEFAULT = DistillConfig(
    candidates=("path_kl:random", "path_kl:halton"),
    coefficient_sequences=2,
    reference_sequences=16,
    held_out_sequences=2,
)


def say(text: str) -> None:
    print(text, flush=True)


def say_table(rows: list[dict[str, Any]], metrics: MetricSet) -> None:
    columns, _ = Report("", Comparison(rows), metrics).tables()
    say("\n" + format_table(rows, headings(columns), digits=4) + "\n")


def distil_all(
    pipe: MaskedDiffusionPipeline,
    model: str,
    folder: Path,
    methods: dict[str, DistillConfig],
    **options: Any,
) -> dict[str, LSDScheduler]:
    """The base sampler, and one for each method; each is saved with its card."""
    length = pipe.denoiser.length
    samplers = {"base": LSDScheduler(**pipe.denoiser.scheduler_config())}
    for name, config in methods.items():
        config = replace(config, teacher_steps=length, **options)
        records, tic = [], time.perf_counter()
        samplers[name] = distill(pipe, config, log=records.append)
        save_sampler(samplers[name], folder / name.replace(" ", "-"), model=model, config=config, records=records)
        calls = records[-1]["network_calls"]
        say(f"  distilled {name}: {calls} network calls, {time.perf_counter() - tic:.0f} s")
    return samplers


def countdown(args: argparse.Namespace) -> list[dict[str, Any]]:
    say(
        "\n== countdown: a Markov chain of 32 states, 256 tokens. The denoiser is exact: all error is the sampler's =="
    )
    pipe = MaskedDiffusionPipeline.from_pretrained("countdown")
    methods = {**METHODS, "default": QUICK_DEFAULT if args.quick else DEFAULT}
    options = {"nfe": args.nfe, "num_sequences": args.num_sequences, "num_states": 128}
    samplers = distil_all(pipe, "countdown", args.output_dir / "countdown", methods, **options)
    metrics = OracleMetrics(pipe.denoiser.transition)
    harness = Harness(pipe, samplers, metrics, num_samples=args.oracle_samples)
    floor = floor_row(metrics, pipe.denoiser.sample(args.oracle_samples, torch.Generator().manual_seed(7)))
    rows = [*compare(harness, args.nfe).judged, floor]
    say_table(rows, metrics)
    return rows


def books(args: argparse.Namespace) -> list[dict[str, Any]]:
    say("== books: a masked diffusion model of English novels, 128 byte-pair tokens ==")
    model = str(MODELS / "books-radd")
    pipe = MaskedDiffusionPipeline.from_pretrained(model, dtype=torch.bfloat16)
    options: dict[str, Any] = {"nfe": args.nfe, "num_sequences": args.num_sequences // 2, "num_states": 64}
    samplers = distil_all(pipe, model, args.output_dir / "books", METHODS, **options)
    samplers["default"] = LSDScheduler.from_pretrained(MODELS / "books-default")
    (text,) = read_texts(MODELS / "books-valid.txt.xz")
    windows = text_windows(pipe.tokenizer, text, pipe.denoiser.length)
    windows = windows[torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))]
    reference, real = windows[args.text_samples :], windows[: args.text_samples]
    judge = JudgeNLL.from_pretrained(str(MODELS / "books-gpt2"), autocast_dtype=torch.bfloat16)
    metrics = TextMetrics(pipe.tokenizer, judge, reference)
    options = {"num_samples": args.text_samples, "num_texts": 2}
    harness = Harness(pipe, samplers, metrics, **options)
    rows = compare(harness, args.nfe, args.temperatures, choose_at=8, sweep_seed=1000).judged
    length = pipe.denoiser.length
    teacher = Harness(pipe, {"teacher, one token a step": samplers["base"]}, metrics, **options)
    tried = teacher.measure(teacher.points([length], TEACHER_TEMPERATURES))
    rows += [*best_per_sampler(tried, metrics.verdict_key), floor_row(metrics, real, name="real text")]
    say_table(rows, metrics)
    say(f"Temperature: each sampler's best of {args.temperatures}, chosen at 8 calls on other samples,")
    say(f"and the teacher's best of {TEACHER_TEMPERATURES} on these.")
    say("JS: Jensen-Shannon divergence of character n-grams to held-out text, in nats.")
    say(f"Every row: {args.text_samples} samples of {length} tokens.\n")
    return rows


def save_samples(rows: list[dict[str, Any]], path: Path) -> None:
    """Two samples of each sampler at 8 calls, of the teacher, side by side."""
    chosen = [row for row in rows if row.get("texts") and (row["nfe"] == 8 or "teacher" in row["sampler"])]
    parts = [
        f"## {row['sampler']}, {row['nfe']} calls, temperature {row['temperature']}\n\n"
        + "\n\n".join("> " + " ".join(text.split()) for text in row["texts"])
        for row in chosen
    ]
    path.write_text("# Samples of the books model\n\n" + "\n\n".join(parts) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=lambda name: Path(name).expanduser(), default=Path("methods-output"))
    parser.add_argument("--num-sequences", type=int, default=64, help="teacher sequences; half as many for the books")
    parser.add_argument("--oracle-samples", type=int, default=1024)
    parser.add_argument("--text-samples", type=int, default=96)
    parser.add_argument("--quick", action="store_true", help="few samples: shows that it runs, not how good it is")
    args = parser.parse_args()
    args.nfe, args.temperatures = NFE, TEMPERATURES
    if args.quick:
        vars(args).update(QUICK)
    if not (MODELS / "books-radd" / "model.safetensors").exists():
        sys.exit(f"The models are missing: no {MODELS / 'books-radd'}. Run it from a clone of the repository.")
    tic = time.perf_counter()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    oracle_rows, text_rows = countdown(args), books(args)
    write_jsonl(args.output_dir / "metrics.jsonl", oracle_rows + text_rows)
    for rows, metrics, name in (
        (
            oracle_rows,
            {"reverse_kl": "reverse KL per transition (nats)", "forbidden_share": "forbidden transitions"},
            "countdown",
        ),
        (text_rows, {"js_char_3gram": "JS divergence, 3-grams", "js_char_4gram": "JS divergence, 4-grams"}, "books"),
    ):
        drawn = [row for row in rows if row["nfe"] in args.nfe]
        file = args.output_dir / ("quality_vs_nfe.png" if name == "books" else f"quality_vs_nfe_{name}.png")
        with optional_plot(file):
            plot_quality_vs_nfe(drawn, file, metrics, title=name, floor=rows[-1])
    save_samples(text_rows, args.output_dir / "samples.md")
    say(f"Saved samplers, metrics.jsonl, quality_vs_nfe.png and samples.md to {args.output_dir}.")
    say(f"{time.perf_counter() - tic:.0f} seconds in all.")


if __name__ == "__main__":
    main()
