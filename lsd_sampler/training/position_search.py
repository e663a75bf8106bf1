"""The search for the choice of positions for one number of calls, by what forced sequences cost or by right answers.

Shape suffixes: S sequences, M calls.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from ..sampling.learned_numbers import LearnedSteps
from ..sampling.noise import NoiseSchedule
from ..sampling.position_choice import BUDGETS, WEIGHTS, PositionChoice, is_in_nats
from ..sampling.schedules import grid_from_counts
from .position_space import EVERYTHING, PositionSpace
from .share_search import neighbours, whole


LEAST_CHECKED, LEAST_FITTED = 64, 32
"""Sequences to compare what was found on, at least: others than those of the search, and those of the search."""
FEWEST = 16
"""Sequences that a candidate is measured on, at least, if there are as many."""
AGAIN = 12
"""How many candidates are measured on more sequences."""
FINALISTS = 4
"""How many candidates are compared at the end, at most."""
STARTS, WIDE = 6, 0.6
"""How many candidates are improved on few sequences, and the share of the evaluations for that."""
CHANGES = 60
"""About as many changes of a candidate are tried as the budget should allow."""
MOST_TOGETHER = 8
HOPELESS = 6.0
"""By how many standard errors a simple order must lead so that nothing else is improved."""
_LEAST_GAIN = 1e-9
_RESOLUTION = 10**6


@dataclass(frozen=True)
class Candidate:
    """One way to choose the positions of M calls.

    Args:
        name (`str`): what a table calls it.
        shares (`tuple[float, ...]` of length M): of the budget, as in [`PositionChoice`].
        weights (`tuple[float, ...]`, *optional*): in the order of `WEIGHTS`; None for an order that needs none.
        free_below (`float`), budget (`str`): as in [`PositionChoice`].
        beta (`float`): the coefficient of the log-score, an inverse temperature.
    """

    name: str = field(compare=False)
    shares: tuple[float, ...]
    weights: tuple[float, ...] | None = None
    free_below: float = 0.0
    budget: str = BUDGETS[0]
    beta: float = 1.0

    def steps(self, known_M: torch.Tensor, noise: NoiseSchedule, eps: float) -> LearnedSteps:
        """The numbers of the sampler.

        Args:
            known_M (`torch.DoubleTensor` of shape `(M,)`): share of the masked positions that is known after each
                call, on average; the times follow from it.
            noise ([`NoiseSchedule`]), eps (`float`): of the forward process, and its last time.
        """
        M = len(self.shares)
        counts = (known_M.clamp(0, 1) * _RESOLUTION).round().long().tolist()[:-1]
        steps = LearnedSteps.plain(grid_from_counts([0, *counts, _RESOLUTION], noise, eps))
        steps = replace(steps, log_score_coefficients=torch.full((M,), self.beta, dtype=torch.float64))
        if self.weights is None:
            return steps
        weights, free = (torch.tensor(value, dtype=torch.float64) for value in (self.weights, self.free_below))
        shares = torch.tensor(self.shares, dtype=torch.float64)
        return replace(steps, choice=PositionChoice(weights, free, shares, self.budget))

    def weight(self, name: str) -> float:
        """The weight of a term."""
        return 0.0 if self.weights is None else self.weights[WEIGHTS.index(name)]

    def with_weight(self, name: str, value: float) -> "Candidate":
        """The same with another weight of a term."""
        assert self.weights is not None
        weights = tuple(value if term == name else old for term, old in zip(WEIGHTS, self.weights, strict=True))
        return replace(self, weights=weights, name="found")

    @property
    def is_simple(self) -> bool:
        """Whether it does not look at the logits."""
        plain = self.free_below == 0 and self.budget == BUDGETS[0]
        return plain and self.weights is not None and not any(self.weights[:3])


@dataclass(frozen=True)
class Measured:
    """What a candidate costs each of some sequences, and how many tokens are known after each call.

    Args:
        costs_S (`torch.DoubleTensor` of shape `(num_sequences,)`): the lower the better.
        known_M (`torch.DoubleTensor` of shape `(M,)`): mean share of the masked positions.
        open_M (`torch.DoubleTensor` of shape `(M,)`): mean number of positions that are open in each call.
        calls_S (`torch.DoubleTensor` of shape `(num_sequences,)`): network calls until a sequence was complete; empty
            where that is not counted.
    """

    costs_S: torch.Tensor
    known_M: torch.Tensor
    open_M: torch.Tensor
    calls_S: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))

    @property
    def mean(self) -> float:
        return float(self.costs_S.mean())


class Figure(Protocol):
    """What is searched on. All processes get the same numbers."""

    num_fit: int
    """Number of sequences to search on."""
    num_check: int
    """Number of others, to compare what was found on."""

    def __call__(self, candidate: Candidate, part: str, num: int | None = None) -> Measured:
        """Measures a candidate on the first `num` sequences of the part `"fit"` or `"check"`."""
        ...


class Budget:
    """Counts sequence-evaluations: one network call on one sequence. What a part of it spends, the whole spends."""

    def __init__(self, most: int, whole: "Budget | None" = None):
        self.left, self.whole = most, whole

    def part(self, share: float) -> "Budget":
        """A share of what is left."""
        return Budget(int(share * self.left), self)

    def allows(self, num_calls: int, num_sequences: int) -> bool:
        """Whether this many more are within the budget; they are then counted."""
        wanted = num_calls * num_sequences
        if wanted > self.left or (self.whole is not None and not self.whole.allows(num_calls, num_sequences)):
            return False
        self.left -= wanted
        return True


def most_spent(most_evaluations: int, num_calls: int) -> int:
    """What a search spends at most: however small its budget, it compares something."""
    return max(most_evaluations, num_calls * LEAST_CHECKED * (1 + FINALISTS))


class Measurements:
    """A figure that measures nothing twice, and counts what it spends."""

    def __init__(self, figure: Figure):
        self.figure, self.num_fit, self.num_check, self.spent = figure, figure.num_fit, figure.num_check, 0
        self._known: dict[tuple[Candidate, str, int], Measured] = {}

    def __call__(self, candidate: Candidate, part: str, num: int | None = None) -> Measured:
        most = self.num_fit if part == "fit" else self.num_check
        key = candidate, part, most if num is None else min(num, most)
        if key not in self._known:
            self._known[key] = self.figure(*key)
            self.spent += len(candidate.shares) * len(self._known[key].costs_S)
        return self._known[key]


@dataclass(frozen=True)
class Found:
    """The result of a search, and what was compared at its end.

    Args:
        best ([`Candidate`]): the choice that is taken.
        measured ([`Measured`]): of that one, on sequences that it was not fitted to.
        others: the other finalists.
        evaluations (`int`): sequence-evaluations that were spent.
    """

    best: Candidate
    measured: Measured
    others: list[tuple[Candidate, Measured]]
    evaluations: int


def search(
    figure: Figure,
    candidates: list[Candidate],
    most_evaluations: int,
    betas: tuple[float, ...] = (),
    space: PositionSpace = EVERYTHING,
) -> Found:
    """The best choice of positions for one number of calls.

    Candidates compete on few sequences, the better ones on more, and the best ones are improved one number at a time,
    always under the same noise. What was found must then beat the best simple order by more than two standard errors
    on other sequences; otherwise the simple one is taken.

    Args:
        figure ([`Figure`]): what decides.
        candidates: where to begin; at least one is simple.
        most_evaluations (`int`): the most sequence-evaluations.
        betas: other coefficients of the log-score to try.
        space ([`PositionSpace`], *optional*): what a change may use.
    """
    M, figure = len(candidates[0].shares), Measurements(figure)
    num_fit = min(figure.num_fit, max(LEAST_FITTED, most_evaluations // (32 * M)))
    num_check = min(figure.num_check, max(LEAST_CHECKED, most_evaluations // (16 * M)))
    budget = Budget(max(0, most_evaluations - FINALISTS * M * (num_fit + num_check)))  # the rest is for the end
    few = min(figure.num_fit, max(FEWEST, min(64, figure.num_fit // 4, budget.left // (M * 4 * len(candidates)))))
    scored = [
        (candidate, figure(candidate, "fit", few))
        for i, candidate in enumerate(sorted(candidates, key=lambda c: not c.is_simple))
        if budget.allows(M, few) or i == 0
    ]
    if (more := min(num_fit, 3 * few)) > few:
        kept = [each for each in _best(scored, 1) if each[0].is_simple]
        kept += [each for each in sorted(scored, key=lambda each: each[1].mean)[:AGAIN] if each not in kept]
        scored = [(c, figure(c, "fit", more)) for c, _ in kept if budget.allows(M, more)] or scored
    finalists = {c: figure(c, "fit", num_fit) for c, _ in _best(scored, 4) if budget.allows(M, num_fit)}
    finalists = finalists or dict(scored)
    simple = min((c for c in finalists if c.is_simple), key=lambda c: finalists[c].mean, default=None)
    best = min(finalists, key=lambda c: finalists[c].mean)
    if simple is None or not _beats(finalists[simple], finalists[best], HOPELESS):
        starts = [c for c, _ in _best(scored, STARTS) if not c.is_simple]
        fewer, each = max(FEWEST, few // 2), budget.part(WIDE).left // max(1, len(starts))
        wide = [improve(figure, c, fewer, Budget(each, budget), betas, space) for c in starts]
        for start, _ in _best(list(filter(None, wide)), 2):
            num = max(few, min(num_fit, budget.left // (M * CHANGES)))
            found = improve(figure, start, num, budget, betas, space)
            finalists |= {c: figure(c, "fit", num_fit) for c in (start, *(found or ())[:1])}
    return _decide(figure, finalists, num_check)


def improve(
    figure: Figure,
    start: Candidate,
    num: int,
    budget: Budget,
    betas: tuple[float, ...],
    space: PositionSpace = EVERYTHING,
) -> tuple[Candidate, Measured] | None:
    """Changes the numbers as long as that lowers the cost and the budget lasts. Returns what it found, with its cost;
    None if the budget does not even last for the start.

    A change is measured on few sequences first, and on all `num` of them only if it is better there.
    """
    M, tried, few = len(start.shares), {start}, min(num, max(FEWEST, num // 4))
    if not budget.allows(M, num + few):
        return None
    best, best_few = (start, figure(start, "fit", num)), figure(start, "fit", few)
    changes, failed = _changes(betas, space), 0
    for change in itertools.cycle(changes):
        if failed == len(changes):
            break
        failed += 1
        for other in change(*best):
            if other in tried or not space.admits(other):
                continue
            tried.add(other)
            if not budget.allows(M, few):
                return best
            other_few = figure(other, "fit", few)
            if other_few.mean >= best_few.mean - _LEAST_GAIN:
                continue
            if few < num and not budget.allows(M, num):
                return best
            now = figure(other, "fit", num)
            if now.mean < best[1].mean - _LEAST_GAIN:
                best, best_few, failed = (other, now), other_few, 0
                break  # the next neighbours are the new one's
    return best


Change = Callable[[Candidate, Measured], Iterator[Candidate]]


def _changes(betas: tuple[float, ...], space: PositionSpace) -> list[Change]:
    thresholds: Change = lambda c, _: _other_thresholds(c, space.free_below)  # noqa: E731
    return [_other_shares, thresholds, lambda c, _: _other_betas(c, betas), _shares_together, _other_weights]


def _other_shares(candidate: Candidate, measured: Measured) -> Iterator[Candidate]:
    shares = torch.tensor(candidate.shares, dtype=torch.float64)
    for other in neighbours(shares, measured.open_M, candidate.budget, (0.8, 1.25), (-1, 1)):
        yield replace(candidate, shares=tuple(other.tolist()), name="found")
    for factor in (0.7, 0.85, 1.2, 1.4):
        other = (shares * factor).clamp(max=torch.inf if is_in_nats(candidate.budget) else 1)
        yield replace(candidate, shares=(*other[:-1].tolist(), 1.0), name="found")


def _shares_together(candidate: Candidate, measured: Measured) -> Iterator[Candidate]:
    """One position more or less in several of three calls in a row. Single changes do not leave every minimum."""
    M = len(candidate.shares)
    if candidate.budget != BUDGETS[0] or M > MOST_TOGETHER:
        return
    shares, open_M = torch.tensor(candidate.shares, dtype=torch.float64), measured.open_M
    for first in range(0, max(1, M - 3)):
        calls = range(first, min(first + 3, M - 1))
        for deltas in itertools.product((-1, 0, 1), repeat=len(calls)):
            if sum(map(bool, deltas)) < 2:
                continue
            moved, taken = shares.clone(), 0
            for k, delta in zip(calls, deltas, strict=True):
                moved[k] = whole(shares[k], open_M[k], delta, open_M[k] - taken)
                taken += delta
            yield replace(candidate, shares=tuple(moved.tolist()), name="found")


def _other_thresholds(candidate: Candidate, thresholds: tuple[float, ...]) -> Iterator[Candidate]:
    if candidate.weights is not None:
        for value in thresholds:
            if value != candidate.free_below:
                yield replace(candidate, free_below=value, name="found")


def _other_weights(candidate: Candidate, _: Measured) -> Iterator[Candidate]:
    if candidate.weights is None:
        return
    for name in WEIGHTS:
        old = candidate.weight(name)
        values = [old * 0.3, old * 3, 0.0] if old else [0.3] if name in ("own", "redundancy", "gain") else []
        for value in values:
            other = candidate.with_weight(name, value)
            if any(other.weights or ()):
                yield other


def _other_betas(candidate: Candidate, betas: tuple[float, ...]) -> Iterator[Candidate]:
    for beta in betas:
        if beta != candidate.beta:
            yield replace(candidate, beta=beta, name="found")


def _best(scored: list[tuple[Candidate, Measured]], num: int) -> list[tuple[Candidate, Measured]]:
    """The best simple candidate, and the best ones of different weights."""
    ranked = sorted(scored, key=lambda each: each[1].mean)
    kept: dict[object, tuple[Candidate, Measured]] = {}
    for each in ranked:
        kept.setdefault((each[0].weights, each[0].beta), each)
    simple = [each for each in ranked if each[0].is_simple][:1]
    best = [each for each in kept.values() if each not in simple][:num]
    return [*simple, *best]


def _beats(first: Measured, second: Measured, errors: float) -> bool:
    """Whether the first costs less, by more than this many standard errors of the difference."""
    difference_S = second.costs_S - first.costs_S
    error = float(difference_S.std()) / len(difference_S) ** 0.5 if len(difference_S) > 1 else 0.0
    return float(difference_S.mean()) > errors * error


def _decide(figure: Measurements, finalists: dict[Candidate, Measured], num: int) -> Found:
    """Compares the best few on sequences that nothing was fitted to."""
    ranked = sorted(finalists, key=lambda c: finalists[c].mean)
    shown = ranked[: FINALISTS - 1]
    simple = next((c for c in ranked if c.is_simple), None)
    if simple is not None and simple not in shown:
        shown.append(simple)
    checked = {c: figure(c, "check", num) for c in shown}
    best = min(shown, key=lambda c: checked[c].mean)
    if simple is not None and not best.is_simple and not _beats(checked[best], checked[simple], 2.0):
        best = simple
    return Found(best, checked[best], [(c, m) for c, m in checked.items() if c != best], figure.spent)
