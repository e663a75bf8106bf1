"""Samplers compared as section 8 of the method's description asks: each at its own best temperature, chosen on other
samples than it is judged on; equal numbers of samples; real data of the same size beside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .harness import Harness, best_per_sampler
from .metrics import MetricSet
from .rows import Row


SWEEP_SEED = 500_000  # far from the seeds of judged batches, `seed + b`


@dataclass(frozen=True)
class Comparison:
    """Rows of one comparison.

    Attributes:
        judged: each sampler at each number of calls, at its own best temperature, with all metrics.
        sweep: what the temperatures were chosen on: other samples, at all temperatures. Empty if there was one.
        floor: the metrics of real data of the same size, or None.
        left_out: sampler -> numbers of calls that it has no numbers for.
    """

    judged: list[Row]
    sweep: list[Row] = field(default_factory=list)
    floor: Row | None = None
    left_out: dict[str, list[int]] = field(default_factory=dict)


def compare(
    harness: Harness,
    nfe: Sequence[int],
    temperatures: Sequence[float] = (1.0,),
    *,
    choose_at: int | None = None,
    frontier: bool = False,
    floor: Row | None = None,
    seed: int = 0,
    sweep_seed: int | None = None,
) -> Comparison:
    """Chooses each sampler's temperature, then judges it.

    Args:
        harness ([`Harness`]): pipeline, samplers and metrics.
        nfe: numbers of steps.
        temperatures: global temperatures to choose from.
        choose_at (`int`, *optional*): choose at this number of steps only, for all: cheaper. Default: at each.
        frontier (`bool`): measure all metrics along the sweep, at each number of steps; otherwise only the verdict.
        floor (*optional*): see [`floor_row`].
        seed (`int`): of the samples that are judged.
        sweep_seed (`int`, *optional*): of those that temperatures are chosen on; default: `seed + 500000`.

    Raises:
        ValueError: if an argument is out of range, or a sampler has no numbers for `choose_at`.
    """
    points = harness.points(nfe, temperatures, seed)
    there = {(point.sampler, point.nfe) for point in points}
    lacking = {name: [steps for steps in nfe if (name, steps) not in there] for name in harness.samplers}
    left_out = {name: steps for name, steps in lacking.items() if steps}
    if len(set(temperatures)) == 1:
        return Comparison(harness.measure(points), [], floor, left_out)
    tried_at = list(nfe) if choose_at is None or frontier else [choose_at]
    if choose_at not in (None, *tried_at):
        raise ValueError(f"`choose_at` must be among `nfe` {tried_at} with a `frontier`, got {choose_at}.")
    trials = harness.points(tried_at, temperatures, seed + SWEEP_SEED if sweep_seed is None else sweep_seed)
    tried = {(trial.sampler, trial.nfe) for trial in trials}
    unknown = {point.sampler for point in points if (point.sampler, choose_at or point.nfe) not in tried}
    if unknown:
        raise ValueError(f"`choose_at` {choose_at}: {', '.join(sorted(unknown))} has no numbers for so many steps.")
    sweep = harness.measure(trials) if frontier else harness.choose(trials)
    chosen = _chosen(sweep, harness.metrics, choose_at)
    best = [point for point in points if point.temperature == chosen[point.sampler, choose_at or point.nfe]]
    return Comparison(harness.measure(best), sweep, floor, left_out)


def _chosen(sweep: Sequence[Row], metrics: MetricSet, choose_at: int | None) -> dict[tuple[str, int], float]:
    rows = [row for row in sweep if choose_at in (None, row["nfe"])]
    best = best_per_sampler(rows, metrics.verdict_key) if rows else []
    return {(row["sampler"], row["nfe"]): row["temperature"] for row in best}
