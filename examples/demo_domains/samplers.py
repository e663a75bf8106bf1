"""The samplers of a domain, and their rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.cli.evaluation_parts import baseline
from lsd_sampler.evaluation import Harness, MetricSet, compare

from .finding import BASE, LEARNED, SLOW
from .progress import bar_of_calls


BATCH_SIZE = 64
LEAST_SAMPLES = 2


def plain_samplers(pipe: MaskedDiffusionPipeline, orders: Sequence[str]) -> dict[str, LSDScheduler]:
    """The base sampler, and one for each order; `order:schedule` has another schedule than the uniform one."""
    config = pipe.denoiser.scheduler_config()
    return {BASE: LSDScheduler(**config)} | {text: baseline(f"tweedie:{text}", config) for text in orders}


def add_learned(samplers: dict[str, LSDScheduler], folder: Path, model: Path) -> list[str]:
    """Adds the learned sampler in a folder; where it is missing, returns a sentence that says so."""
    if not (folder / "scheduler_config.json").exists():
        how = f"`lsd-train --model {model} --output-dir {folder}` makes it"
        return [f"No learned sampler in {folder}: its row is left out ({how})."]
    samplers[LEARNED] = LSDScheduler.from_pretrained(folder)
    return []


def measure(
    pipe: MaskedDiffusionPipeline,
    samplers: dict[str, LSDScheduler],
    metrics: MetricSet,
    nfe: Sequence[int],
    num_samples: int,
    *,
    temperatures: Sequence[float] = (1.0,),
    choose_at: int | None = None,
    doing: str = "sampling",
    **options: Any,
) -> list[dict[str, Any]]:
    """All rows, each sampler at its own best of the temperatures, while a bar counts the network calls."""
    pipe.set_progress_bar_config(disable=True)  # of each batch
    number = max(num_samples, LEAST_SAMPLES)
    harness = Harness(pipe, samplers, metrics, num_samples=number, batch_size=BATCH_SIZE, progress=False, **options)
    points = harness.points(nfe, [1.0])
    if len(temperatures) > 1:
        points += harness.points(nfe if choose_at is None else [choose_at], temperatures)
    calls = sum(point.nfe for point in points) * -(-number // BATCH_SIZE)
    with bar_of_calls(pipe.denoiser, calls, doing):
        return compare(harness, nfe, temperatures, choose_at=choose_at).judged


def measure_slow(
    pipe: MaskedDiffusionPipeline, base: LSDScheduler, metrics: MetricSet, num_samples: int, **options: Any
) -> list[dict[str, Any]]:
    """The row of the base sampler with as many calls as tokens: what the model itself can do."""
    length = pipe.denoiser.length
    return measure(pipe, {SLOW: base}, metrics, [length], num_samples, doing=f"{SLOW} ({length} calls)", **options)
