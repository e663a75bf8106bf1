"""What each part of the learned choice of positions is worth, on exact oracles: `forced_kl` without it.

    python benchmarks/position_ablation.py ablation     # five minutes of one core; what is done is kept there

Prints one markdown table. For each variant and number of calls: nats of held-out exact samples above one token a call,
which an exact model makes the total correlation of what is revealed together, with the standard error; and the figure
of the oracle on samples, the share of valid ones or the reverse KL per transition. An asterisk marks where the search
found nothing better than a simple order (`random` or `halton` with learned shares), and took that.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill
from lsd_sampler.denoisers import load_denoiser
from lsd_sampler.evaluation import append_jsonl, oracle_metrics, read_jsonl
from lsd_sampler.sampling.pipeline_runs import PipelineRuns
from lsd_sampler.training.held_out import HeldOutBatch, held_out_nats


TASKS = {"sudoku4": (3, 4), "sudoku4:clues=4": (2, 3), "countdown:V=16,L=64": (4, 6)}
VARIANTS: dict[str, dict[str, Any]] = {
    "all": {},
    "no own": {"terms": ("redundancy", "gain", "random", "halton")},
    "no redundancy": {"terms": ("own", "gain", "random", "halton")},
    "no gain": {"terms": ("own", "redundancy", "random", "halton")},
    "no base order": {"terms": ("own", "redundancy", "gain")},
    "kappa by offset": {"layouts": ("offset",)},
    "kappa by matrix": {"layouts": ("matrix",)},
    "no kappa": {"terms": ("own", "random", "halton")},
    "shares of positions": {"budgets": ("position_shares",)},
    "shares of nats": {"budgets": ("entropy_shares",)},
    "bounds in nats": {"budgets": ("entropy_bounds",)},
    "no free threshold": {"free_below": (0.0,)},
    "shares alone": {"terms": ("random", "halton"), "budgets": ("position_shares",), "free_below": (0.0,)},
}
LEARN, HELD_OUT, SAMPLE = 11, 12, 13
"""Seeds: of the sequences that are learned from, of those that are priced, and of the samples."""
BATCH = 256


def pipeline_of(model: str, scheduler: LSDScheduler | None = None) -> MaskedDiffusionPipeline:
    """A silent pipeline around an oracle."""
    oracle = load_denoiser(model)
    pipe = MaskedDiffusionPipeline(oracle, scheduler or LSDScheduler(**oracle.scheduler_config()))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def exact_canvases(model: str, num: int, seed: int) -> tuple[dict[str, Any], torch.Tensor]:
    """The arguments of the pipeline's call that give what the task gives, and the exact samples behind them."""
    oracle = load_denoiser(model)
    canvases, truth = oracle.canvases(num, torch.Generator().manual_seed(seed))
    return ({"input_ids": canvases} if oracle.clues else {}), truth


def learn(model: str, nfe: tuple[int, ...], options: Mapping[str, Any], args: argparse.Namespace) -> LSDScheduler:
    """The sampler of a variant."""
    call, data = exact_canvases(model, args.num_sequences, LEARN)
    config = DistillConfig(
        method="forced_kl",
        nfe=nfe,
        num_sequences=args.num_sequences,
        search_evaluations=args.search_evaluations,
        **options,
    )
    return distill(pipeline_of(model), config, data=data, **call)


def priced(model: str, scheduler: LSDScheduler, nfe: int, num: int) -> torch.Tensor:
    """What held-out exact samples cost a sampler, in nats each. `(num,)`."""
    call, truth = exact_canvases(model, num, HELD_OUT)
    batches: list[HeldOutBatch] = [
        (range(i, min(i + BATCH, num)), [truth[i : i + BATCH]]) for i in range(0, num, BATCH)
    ]
    return held_out_nats(PipelineRuns(pipeline_of(model), HELD_OUT, call), scheduler, nfe, batches)


def judged(model: str, scheduler: LSDScheduler, nfe: int, num: int) -> tuple[str, float]:
    """The figure of the oracle on `num` samples, and its name."""
    pipe = pipeline_of(model, scheduler)
    metrics = oracle_metrics(pipe.denoiser, num, seed=SAMPLE)
    given = {"num_samples": num} if metrics.canvases is None else {"input_ids": metrics.canvases}
    generator = torch.Generator().manual_seed(SAMPLE)
    made = pipe(**given, num_inference_steps=nfe, generator=generator, output_type="ids").sequences
    row = metrics.compute(made)
    key = "valid_share" if "valid_share" in row else "reverse_kl"
    return key, row[key]


def is_simple(scheduler: LSDScheduler, nfe: int) -> bool:
    """Whether nothing better was found than an order that does not look at the logits."""
    choice = scheduler.steps_for(nfe).choice
    assert choice is not None
    looks = any(choice.weight(term) for term in ("own", "redundancy", "gain"))
    return not looks and choice.budget == "position_shares" and float(choice.free_below) == 0


def measure(model: str, variant: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of a variant on a task, one for each number of calls."""
    torch.set_num_threads(1)
    began, nfe = time.perf_counter(), TASKS[model]
    scheduler = learn(model, nfe, VARIANTS[variant], args)
    tokens = load_denoiser(model).length
    plain = LSDScheduler(**load_denoiser(model).scheduler_config())
    least = priced(model, plain, tokens, args.num_samples)
    rows = []
    for M in nfe:
        above = priced(model, scheduler, M, args.num_samples) - least
        figure, value = judged(model, scheduler, M, args.num_samples)
        row = {"model": model, "variant": variant, "nfe": M, "above": float(above.mean())}
        row |= {"error": float(above.std() / len(above) ** 0.5), "figure": figure, "value": value}
        rows.append(row | {"simple": is_simple(scheduler, M), "seconds": time.perf_counter() - began, **asked(args)})
    return rows


def asked(args: argparse.Namespace) -> dict[str, int]:
    """The sizes that a row depends on."""
    return {name: getattr(args, name) for name in ("num_sequences", "search_evaluations", "num_samples")}


def all_rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows that are kept, then those that are still to be measured."""
    file = args.folder / "rows.jsonl"
    kept = [row for row in read_jsonl(file) if row | asked(args) == row] if file.exists() else []
    yield from kept
    done = {(row["model"], row["variant"]) for row in kept}
    wanted = [(model, variant) for variant in VARIANTS for model in TASKS if (model, variant) not in done]
    with ProcessPoolExecutor(args.jobs) as pool:
        pending = [pool.submit(measure, *each, args) for each in wanted]
        for i, each in enumerate(as_completed(pending), start=1):
            rows = each.result()
            for row in rows:
                append_jsonl(file, row)
            yield from rows
            last = rows[-1]
            print(f"{i}/{len(wanted)} {last['model']} {last['variant']}: {last['seconds']:.0f} s", file=sys.stderr)


def table(rows: list[dict[str, Any]]) -> str:
    """The markdown table."""
    cells = {(row["variant"], row["model"], row["nfe"]): row for row in rows}
    columns = [(model, M) for model, nfe in TASKS.items() for M in nfe]
    figures = {row["model"]: {"valid_share": "valid", "reverse_kl": "reverse KL"}[row["figure"]] for row in rows}
    heads = [f"{model}, {M} calls: nats above, {figures[model]}" for model, M in columns]
    lines = [["variant", *heads], ["---"] * (1 + len(heads))]
    for variant in VARIANTS:
        lines.append([variant, *(_cell(cells[variant, *column]) for column in columns)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(row: Mapping[str, Any]) -> str:
    above = f"{abs(row['above']):.2f}" if abs(row["above"]) < 0.005 else f"{row['above']:.2f}"
    value = f"{row['value']:.3f}"
    return f"{above} ({row['error']:.2f}), {value}{' *' if row['simple'] else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where measurements are kept; a second call goes on with them")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one core each")
    parser.add_argument("--num-sequences", type=int, default=1024, help="exact samples to learn from")
    parser.add_argument("--search-evaluations", type=int, default=32768, help="of forced_kl")
    parser.add_argument("--num-samples", type=int, default=2048, help="held-out sequences, and samples")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    print(table(list(all_rows(args))))


if __name__ == "__main__":
    main()
