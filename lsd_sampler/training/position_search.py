"""The search for the choice of positions for one number of calls."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..sampling.position_choice import BUDGETS
from .position_candidates import FEWEST, Budget, Candidate, Figure, Measured, Measurements
from .position_changes import Changes, Scored
from .position_space import EVERYTHING, PositionSpace


LEAST_CHECKED = 64
"""Sequences to compare what was found on, at least; others than those of the search."""
FINALISTS = 4
"""How many candidates are compared at the end, at most."""
STAGES = ((0.45, 1, 0.3), (0.55, 4, 0.6), (1.0, 12, 0.8))
"""What each stage may spend, as a share of what is left; on how many times as many sequences as at first it measures;
and how often it changes the cheapest candidates of all, instead of those of one budget.
"""
QUICK_STAGES = ((0.6, 1, 0.5), (1.0, 4, 0.5))
"""Those of a short search."""
ISLAND = 4
"""How many candidates of each budget are changed."""
SAME = 2
"""How many of them have the same weights, at most."""
AGAIN = 0.4
"""Share of a stage's evaluations, at most, for candidates that were found before it."""
HOPELESS = 6.0
"""By how many standard errors a simple order must lead so that nothing else is improved."""
PATIENCE = 80
"""As many changes in a row that do not lower the cost end a stage."""
_MOST_VAIN = 2000
_LEAST_GAIN = 1e-9


def most_spent(most_evaluations: int, num_calls: int) -> int:
    """What a search spends at most: however small its budget, it compares something."""
    return max(most_evaluations, num_calls * LEAST_CHECKED * (1 + FINALISTS))


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
    candidates: Sequence[Candidate],
    most_evaluations: int,
    betas: Sequence[float] = (),
    space: PositionSpace = EVERYTHING,
    seed: int = 0,
) -> Found:
    """The best choice of positions for one number of calls.

    The search is evolutionary, with an island for each budget. A random change of one of the best candidates joins
    them if it costs less than the candidate that was changed. Later stages measure on more sequences. All candidates
    meet the same noise. What was found must then beat the best simple order by more than two standard errors on other
    sequences; otherwise the simple one is taken.

    Args:
        figure ([`Figure`]): what decides.
        candidates: where to begin; at least one is simple, unless they have no weights.
        most_evaluations (`int`): the most sequence-evaluations.
        betas: other coefficients of the log-score to try.
        space ([`PositionSpace`], *optional*): what a change may use.
        seed (`int`, *optional*, defaults to 0): of the changes.
    """
    M, figure = len(candidates[0].shares), Measurements(figure)
    num_check = min(figure.num_check, max(LEAST_CHECKED, most_evaluations // (32 * M)))
    budget = Budget(max(0, most_evaluations - FINALISTS * M * max(num_check, FEWEST)))  # the rest is for the end
    scored = Evolution(figure, budget, Changes(betas, space, seed)).run(candidates, STAGES)
    return _decide(figure, [c for c, _ in [*_simplest(scored), *_different(scored)][:FINALISTS]], num_check)


def quick_search(
    figure: Figure,
    candidates: Sequence[Candidate],
    most_evaluations: int,
    space: PositionSpace = EVERYTHING,
    seed: int = 0,
) -> list[Scored]:
    """What two short stages find, the best first. All of it is measured on the same sequences.

    Args:
        figure, candidates, most_evaluations, space, seed: as in [`search`].
    """
    evolution = Evolution(Measurements(figure), Budget(most_evaluations), Changes((), space, seed))
    scored = evolution.run(candidates, QUICK_STAGES)
    return _different(scored)


class Evolution:
    """Changes candidates as long as the budget lasts.

    Args:
        figure ([`Measurements`]): what decides.
        budget ([`Budget`]): what may be spent.
        changes ([`Changes`]): what is tried.
    """

    def __init__(self, figure: Measurements, budget: Budget, changes: Changes):
        self.figure, self.budget, self.changes, self.rng = figure, budget, changes, changes.rng

    def run(self, candidates: Iterable[Candidate], stages: Iterable[tuple[float, int, float]]) -> list[Scored]:
        """The candidates that were kept, with what they cost on the sequences of the last stage.

        Args:
            candidates: where to begin.
            stages: as in `STAGES`.
        """
        ranked = sorted(candidates, key=lambda c: not c.is_simple)
        scored = self._measured(ranked, 1, self.budget.part(AGAIN))
        scored = scored or [(ranked[0], self.figure(ranked[0], "fit", self.figure.num_first))]
        if self._is_hopeless(scored):
            return scored
        for share, times, greedy in stages:
            part, num = self.budget.part(share), min(times * self.figure.num_first, self.figure.num_fit)
            if times > 1:
                scored = self._again(scored, times, part) or scored
            scored += self._improved([each for each in scored if len(each[1].costs_S) == num], part, num, greedy)
        return scored

    def _measured(self, candidates: Iterable[Candidate], times: int, budget: Budget) -> list[Scored]:
        """As many as the budget allows, on so many times as many sequences as first."""
        num = min(times * self.figure.num_first, self.figure.num_fit)
        return [(c, self.figure(c, "fit", num)) for c in candidates if budget.allows(len(c.shares), num)]

    def _again(self, scored: list[Scored], times: int, budget: Budget) -> list[Scored]:
        """The best ones, measured on more sequences; none if the budget does not last for a few."""
        places = [list(enumerate(island)) for island in self._islands(scored, 2 * ISLAND)]
        ranked = sorted(itertools.chain(*places), key=lambda each: (each[0], each[1][1].mean))
        kept = [c for c, _ in [*_simplest(scored), *(each for _, each in ranked)]]
        num = min(times * self.figure.num_first, self.figure.num_fit) * len(kept[0].shares)
        affordable = max(int(AGAIN * budget.left) // num, min(FINALISTS, budget.left // num))
        return self._measured(kept[:affordable], times, budget) if affordable > 1 else []

    def _is_hopeless(self, scored: list[Scored]) -> bool:
        simple, others = _simplest(scored), _different(scored)[:2]
        if not simple or not others:
            return False
        again = [m for _, m in self._measured((c for c, _ in [*simple, *others]), 4, self.budget.part(AGAIN))]
        return len(again) > 1 and all(_beats(again[0], other, HOPELESS) for other in again[1:])

    def _improved(self, scored: list[Scored], budget: Budget, num: int, greedy: float) -> list[Scored]:
        """What is cheaper than the candidate that it was made of. A change is measured on few sequences first."""
        tried, found, failed, vain = {c for c, _ in scored}, list[Scored](), 0, 0
        few = max(1, num // 4) if num > self.figure.num_first else num
        islands = self._islands(scored, ISLAND)
        while islands and failed < PATIENCE and vain < _MOST_VAIN:
            parent, measured = self._chosen(islands, greedy)
            child = self.changes(parent, measured, [c for c, _ in itertools.chain(*islands)])
            if child is None or child in tried:
                vain += 1  # nothing was measured
                continue
            vain, failed, M = 0, failed + 1, len(child.shares)
            tried.add(child)
            if not budget.allows(M, few):
                break
            now = self.figure(child, "fit", few)
            if now.mean >= float(measured.costs_S[:few].mean()) - _LEAST_GAIN:
                continue
            if few < num and not budget.allows(M, num):
                break
            found.append((child, self.figure(child, "fit", num)))
            failed = 0
            islands = self._islands([*scored, *found], ISLAND)
        return found

    def _islands(self, scored: Iterable[Scored], num: int) -> list[list[Scored]]:
        """The best candidates of each budget."""
        apart = ([each for each in scored if each[0].budget == budget] for budget in BUDGETS)
        return list(filter(None, (_different(island)[:num] for island in apart)))

    def _chosen(self, islands: list[list[Scored]], greedy: float) -> Scored:
        """One to change: of all, or of one island; the better, the more often."""
        everyone = sorted(itertools.chain(*islands), key=lambda each: each[1].mean)
        among = everyone if self.rng.random() < greedy else self.rng.choice(islands)
        return among[min(int(self.rng.expovariate(0.8)), len(among) - 1)]


def _simplest(scored: Iterable[Scored]) -> list[Scored]:
    """The best simple one, if there is one."""
    return sorted((each for each in scored if each[0].is_simple), key=lambda each: each[1].mean)[:1]


def _different(scored: Iterable[Scored]) -> list[Scored]:
    """Those that are not simple, the best first, and few of the same weights, budget and temperature."""
    kept: dict[object, list[Scored]] = {}
    for each in sorted((each for each in scored if not each[0].is_simple), key=lambda each: each[1].mean):
        same = kept.setdefault((each[0].weights, each[0].budget, each[0].beta), [])
        if len(same) < SAME:
            same.append(each)
    return sorted(itertools.chain(*kept.values()), key=lambda each: each[1].mean)


def _beats(first: Measured, second: Measured, errors: float) -> bool:
    """Whether the first costs less, by more than this many standard errors of the difference."""
    difference_S = second.costs_S - first.costs_S
    error = float(difference_S.std()) / len(difference_S) ** 0.5 if len(difference_S) > 1 else 0.0
    return float(difference_S.mean()) > errors * error


def _decide(figure: Measurements, finalists: Sequence[Candidate], num: int) -> Found:
    """Compares the best few on sequences that nothing was fitted to."""
    checked = {c: figure(c, "check", num) for c in finalists}
    best = min(finalists, key=lambda c: checked[c].mean)
    simple = next((c for c in finalists if c.is_simple), None)
    if simple is not None and not best.is_simple and not _beats(checked[best], checked[simple], 2.0):
        best = simple
    return Found(best, checked[best], [(c, m) for c, m in checked.items() if c != best], figure.spent)
