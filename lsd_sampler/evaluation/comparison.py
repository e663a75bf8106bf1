"""Comparison of samplers as docs/evaluation.md ("The traps, each with its measurement") asks for. Each sampler is
judged at its own best temperature and guidance, chosen on other samples than those it is judged on. All have equal
numbers of samples, with real data of the same size beside them.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .harness import Harness, best_per_sampler
from .metric_sets import MetricSet
from .parallelism import read_at_calls, undominated, with_mean_calls
from .rows import Row


SWEEP_SEED = 500_000  # far from the seeds of judged batches, `seed + b`


@dataclass(frozen=True)
class Comparison:
    """Rows of one comparison.

    Attributes:
        judged: each sampler at each number of calls, at its own best temperature, with all metrics.
        sweep: the rows that temperatures and guidance were chosen on: other samples, at all of them. Empty if there
            was nothing to choose.
        floor: the metrics of real data of the same size, or None.
        left_out: sampler -> the numbers of calls that it was not learned for.
        further: the base solver at more calls than all were judged at, with all metrics; see [`measure_further`].
        curves: name -> rows of samplers whose constant was swept, with all metrics, and under `read` "yes" for those
            that the curve is read off between, else None; see [`measure_curves`].
        notes: sentences about what could not be read off these curves.
    """

    judged: list[Row]
    sweep: list[Row] = field(default_factory=list)
    floor: Row | None = None
    left_out: dict[str, list[int]] = field(default_factory=dict)
    further: list[Row] = field(default_factory=list)
    curves: dict[str, list[Row]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        """All that was judged, sampler after sampler."""
        names = list(dict.fromkeys(row["sampler"] for row in self.judged))
        return sorted([*self.judged, *self.further], key=lambda row: names.index(row["sampler"]))


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
    guidance_scales: Sequence[float | None] = (None,),
) -> Comparison:
    """Chooses each sampler's temperature and guidance together, then judges it.

    Args:
        harness ([`Harness`]): pipeline, samplers and metrics.
        nfe: numbers of steps.
        temperatures: global temperatures to choose from.
        choose_at (`int`, *optional*): choose at this number of steps only, and use the choice at the others too, which
            is cheaper. Default: choose at each.
        frontier (`bool`): measure all metrics along the sweep, at each number of steps; otherwise only the verdict.
        floor (*optional*): see [`floor_row`].
        seed (`int`): of the samples that are judged.
        sweep_seed (`int`, *optional*): of those that temperatures are chosen on; default: `seed + 500000`.
        guidance_scales: strengths of classifier-free guidance to choose from; None is the pipeline's own.

    Raises:
        ValueError: if an argument is out of range, a sampler has no numbers for `choose_at`, or a `frontier` is asked
            for along several `guidance_scales`.
    """
    if frontier and len(set(guidance_scales)) > 1:
        raise ValueError("`frontier` runs along temperatures: give one of `guidance_scales`.")
    points = harness.points(nfe, temperatures, seed, guidance_scales)
    there = {(point.sampler, point.nfe) for point in points}
    lacking = {name: [steps for steps in nfe if (name, steps) not in there] for name in harness.samplers}
    left_out = {name: steps for name, steps in lacking.items() if steps}
    if len(set(temperatures)) == len(set(guidance_scales)) == 1:
        return Comparison(harness.measure(points), [], floor, left_out)
    tried_at = list(nfe) if choose_at is None or frontier else [choose_at]
    if choose_at not in (None, *tried_at):
        raise ValueError(f"`choose_at` must be among `nfe` {tried_at} with a `frontier`, got {choose_at}.")
    chooser, apart = harness.chooser or harness, seed + SWEEP_SEED if sweep_seed is None else sweep_seed
    trials = chooser.points(tried_at, temperatures, apart, guidance_scales)
    tried = {(trial.sampler, trial.nfe) for trial in trials}
    unknown = {point.sampler for point in points if (point.sampler, choose_at or point.nfe) not in tried}
    if unknown:
        raise ValueError(f"`choose_at` {choose_at}: {', '.join(sorted(unknown))} has no numbers for that many steps.")
    sweep = chooser.measure(trials) if frontier else chooser.choose(trials)
    chosen = _chosen(sweep, harness.metrics, choose_at)
    best = [
        point
        for point in points
        if (point.temperature, point.guidance_scale) == chosen[point.sampler, choose_at or point.nfe]
    ]
    return Comparison(harness.measure(best), sweep, floor, left_out)


def measure_further(
    harness: Harness,
    found: Comparison,
    base: str,
    *,
    nfe: int,
    ours: Sequence[str] = (),
    limit: int | None = None,
    temperatures: Sequence[float] = (1.0,),
    choose_at: int | None = None,
    seed: int = 0,
    guidance_scales: Sequence[float | None] = (None,),
) -> Comparison:
    """Measures the base solver at 2, 4, 8, ... times as many calls, until it is as good as the others at `nfe`.

    Args:
        harness ([`Harness`]), found ([`Comparison`]): what was compared.
        base (`str`): the base solver's name.
        nfe (`int`): the others' number of calls.
        ours (*optional*): which others; default: all.
        limit (`int`, *optional*): the largest number of calls; default, and at most: one token a call.
        temperatures, choose_at, seed, guidance_scales: as for [`compare`].

    Returns:
        the comparison with the rows that were needed in `further`.
    """
    key = harness.metrics.verdict_key
    curve = [row for row in found.rows if row["sampler"] == base]
    targets = [row[key] for row in found.judged if row["nfe"] == nfe and (not ours or row["sampler"] in ours)]
    while curve and targets and min(row[key] for row in curve) > min(targets):
        most, length = max(row["nfe"] for row in curve), curve[0]["length"]
        more = min(2 * most, length, limit or length)
        if more <= most:
            break
        print(f"{base} is not as good within {most} calls: it is measured at {more}.", file=sys.stderr)
        options: dict[str, Any] = {"choose_at": choose_at, "seed": seed, "guidance_scales": guidance_scales}
        rows = compare(harness.only(base), [more], temperatures, **options).judged
        if not rows:
            break
        curve += rows
        found = replace(found, further=[*found.further, *rows])
    return found


def measure_curves(
    harness: Harness,
    found: Comparison,
    swept: Mapping[str, Sequence[str]],
    nfe: Sequence[int],
    *,
    steps: int,
    temperatures: Sequence[float] = (1.0,),
    seed: int = 0,
    guidance_scales: Sequence[float | None] = (None,),
) -> Comparison:
    """Measures samplers whose calls vary at several constants, and reads them off at the calls of the others.

    Constants to which another is as good with as few calls are left out of the reading, as told by the samples that
    temperatures and guidance are chosen on (with nothing to choose, by those that are judged).

    Args:
        harness ([`Harness`]), found ([`Comparison`]): what was compared.
        swept: name -> samplers of `harness` that differ in a constant.
        nfe: where to read; see [`read_at_calls`].
        steps (`int`): the number of steps that lets each finish.
        temperatures, seed, guidance_scales: as for [`compare`].

    Returns:
        the comparison with a row for each reading in `judged`, and the curves.
    """
    key = harness.metrics.verdict_key
    for name, samplers in swept.items():
        measured = compare(harness.only(*samplers), [steps], temperatures, seed=seed, guidance_scales=guidance_scales)
        chosen = {(row["sampler"], *_settings(row)) for row in measured.judged}
        tried = [row for row in measured.sweep if (row["sampler"], *_settings(row)) in chosen]
        judged = [with_mean_calls(row, key) for row in measured.judged]
        kept = {row["sampler"] for row in undominated([with_mean_calls(row, key) for row in tried] or judged, key)}
        curve = [row | {"read": "yes" if row["sampler"] in kept else None} for row in judged]
        readings, notes = read_at_calls([row for row in curve if row["read"]], name, nfe, key=key)
        found = replace(
            found,
            judged=[*found.judged, *readings],
            sweep=[*found.sweep, *measured.sweep],
            curves={**found.curves, name: curve},
            notes=[*found.notes, *notes],
        )
    return found


def _chosen(
    sweep: Sequence[Row], metrics: MetricSet, choose_at: int | None
) -> dict[tuple[str, int], tuple[float, float | None]]:
    """Temperature and guidance scale of each sampler at each number of steps."""
    rows = [row for row in sweep if choose_at in (None, row["nfe"])]
    best = best_per_sampler(rows, metrics.verdict_key) if rows else []
    return {(row["sampler"], row["nfe"]): _settings(row) for row in best}


def _settings(row: Row) -> tuple[float, float | None]:
    """Temperature and guidance scale of a row."""
    return row["temperature"], row.get("guidance_scale")
