"""Ways to choose positions for a number of calls, what each of them was measured to cost, and what measuring spends.

Shape suffixes: S sequences, M calls.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from ..sampling.learned_numbers import LearnedSteps
from ..sampling.noise import NoiseSchedule
from ..sampling.position_choice import BUDGETS, WEIGHTS, PositionChoice
from ..sampling.schedules import grid_from_counts


FEWEST = 16
"""Sequences that a measurement is made on, at least, if there are as many. It always counts as one on so many: a
smaller batch takes a network call as well.
"""
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

    def numbers(self) -> torch.Tensor:
        """All that it is but its name, for a file."""
        weights = (float("nan"),) * len(WEIGHTS) if self.weights is None else self.weights
        numbers = [self.free_below, BUDGETS.index(self.budget), self.beta, *weights, *self.shares]
        return torch.tensor(numbers, dtype=torch.float64)

    @classmethod
    def of_numbers(cls, name: str, numbers: torch.Tensor) -> "Candidate":
        """The candidate that had these [`~Candidate.numbers`]."""
        free_below, budget, beta, *rest = numbers.tolist()
        weights, shares = tuple(rest[: len(WEIGHTS)]), tuple(rest[len(WEIGHTS) :])
        has_weights = not any(map(math.isnan, weights))
        return cls(name, shares, weights if has_weights else None, free_below, BUDGETS[int(budget)], beta)

    def weight(self, name: str) -> float:
        """The weight of a term."""
        return 0.0 if self.weights is None else self.weights[WEIGHTS.index(name)]

    def with_weight(self, name: str, value: float) -> "Candidate":
        """The same with another weight of a term."""
        assert self.weights is not None
        weights = tuple(value if term == name else old for term, old in zip(WEIGHTS, self.weights, strict=True))
        return replace(self, weights=weights, name="found")

    @property
    def looks_at_logits(self) -> bool:
        """Whether a weight of a term of the logits is not 0."""
        return self.weights is not None and any(self.weights[:3])

    @property
    def is_simple(self) -> bool:
        """Whether it does not look at the logits."""
        plain = self.free_below == 0 and self.budget == BUDGETS[0]
        return plain and self.weights is not None and not self.looks_at_logits


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
    num_first: int
    """On how many a candidate is measured first; fewer would hardly tell good ones from bad ones."""

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
        """Whether a measurement on so many sequences, each in so many calls, is within the budget; it is then
        counted.
        """
        wanted = num_calls * max(num_sequences, FEWEST)
        if wanted > self.left or (self.whole is not None and not self.whole.allows(num_calls, num_sequences)):
            return False
        self.left -= wanted
        return True


class Measurements:
    """A figure that measures nothing twice, and counts what it spends."""

    def __init__(self, figure: Figure):
        self.figure, self.spent = figure, 0
        self.num_fit, self.num_check, self.num_first = figure.num_fit, figure.num_check, figure.num_first
        self._known: dict[tuple[Candidate, str, int], Measured] = {}

    def __call__(self, candidate: Candidate, part: str, num: int | None = None) -> Measured:
        most = self.num_fit if part == "fit" else self.num_check
        key = candidate, part, most if num is None else min(num, most)
        if key not in self._known:
            self._known[key] = self.figure(*key)
            self.spent += len(candidate.shares) * len(self._known[key].costs_S)
        return self._known[key]
