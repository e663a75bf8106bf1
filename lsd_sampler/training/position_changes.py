"""Random changes of a choice of positions, for a search.

Shape suffixes: M calls.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import torch

from ..sampling.position_choice import BUDGETS, WEIGHTS, is_in_nats
from .position_candidates import Candidate, Measured
from .position_space import EVERYTHING, PositionSpace
from .share_search import whole


Scored = tuple[Candidate, Measured]
_NEW_WEIGHTS = (0.01, 0.3, 1.0)
_FACTORS = (0.0, 0.1, 0.3, 3.0, 10.0)
_DELTAS = (-2, -1, 1, 2)
_SPREAD = 0.4
"""Standard deviation of the logarithm of a factor of shares."""


class Changes:
    """Draws changes of one candidate: its shares, a weight, its threshold or temperature, or what another one has.

    Args:
        betas: coefficients of the log-score that may be taken; none to keep those that candidates have.
        space ([`PositionSpace`], *optional*): what a change may use.
        seed (`int`, *optional*, defaults to 0): of the draws.
    """

    def __init__(self, betas: Sequence[float] = (), space: PositionSpace = EVERYTHING, seed: int = 0):
        self.betas, self.space, self.rng = betas, space, random.Random(seed)

    def __call__(self, parent: Candidate, measured: Measured, others: Sequence[Candidate]) -> Candidate | None:
        """A changed candidate; None if the draw changes nothing, or leads out of the space.

        Args:
            parent ([`Candidate`]): what is changed.
            measured ([`Measured`]): what it was measured to do.
            others: candidates whose weights may be taken.
        """
        kinds = {self._shares: 5.0, self._weights: 2.5, self._threshold: 1.0, self._taken_over: 1.5}
        if self.betas:
            kinds[self._temperature] = 1.0
        if parent.weights is None:
            kinds = {self._shares: 1.0}
        (change,) = self.rng.choices(list(kinds), list(kinds.values()))
        changed = change(parent, measured, others)
        inside = changed is not None and changed != parent and self.space.admits(changed)
        return replace(changed, name="found") if changed is not None and inside else None

    def _shares(self, parent: Candidate, measured: Measured, _: Sequence[Candidate]) -> Candidate | None:
        if len(parent.shares) < 2:
            return None
        by_position = parent.budget == BUDGETS[0] and self.rng.random() < 0.6
        shares = self._moved(parent, measured) if by_position else self._scaled(parent.shares)
        most = math.inf if is_in_nats(parent.budget) else 1.0
        return replace(parent, shares=(*(min(max(share, 0.0), most) for share in shares[:-1]), 1.0))

    def _moved(self, parent: Candidate, measured: Measured) -> list[float]:
        """One or two calls take some positions more or less; half of the time, the next one takes as many fewer."""
        M, shares, taken = len(parent.shares), list(parent.shares), 0
        first, delta = self.rng.randrange(M - 1), self.rng.choice(_DELTAS)
        second = first + 1 if self.rng.random() < 0.5 else self.rng.randrange(M - 1)
        other = -delta if second == first + 1 else self.rng.choice((0, *_DELTAS))
        moves = {first: delta} if second in (first, M - 1) else {first: delta, second: other}
        for k in sorted(moves):
            left = measured.open_M[k]
            share = torch.tensor(shares[k], dtype=torch.float64)
            shares[k] = float(whole(share, left, moves[k], (left - taken).clamp(min=1)))
            taken += moves[k]
        return shares

    def _scaled(self, shares: Sequence[float]) -> list[float]:
        """Calls in a row are scaled: one, some or all; sometimes, the next one is scaled back."""
        M, scaled = len(shares), list(shares)
        first = self.rng.randrange(M - 1)
        end = first + 1 if self.rng.random() < 0.6 else self.rng.randrange(first + 1, M)
        if self.rng.random() < 0.2:
            first, end = 0, M - 1
        factor = math.exp(self.rng.gauss(0, _SPREAD))
        scaled[first:end] = [share * factor for share in scaled[first:end]]
        if self.rng.random() < 0.3:
            scaled[end] /= factor
        return scaled

    def _weights(self, parent: Candidate, _: Measured, __: Sequence[Candidate]) -> Candidate | None:
        name = self.rng.choice(WEIGHTS)
        old = parent.weight(name)
        value = old * self.rng.choice(_FACTORS) if old else self.rng.choice(_NEW_WEIGHTS)
        changed = parent.with_weight(name, value)
        return changed if changed.looks_at_logits else None

    def _threshold(self, parent: Candidate, _: Measured, __: Sequence[Candidate]) -> Candidate:
        return replace(parent, free_below=self.rng.choice(self.space.free_below))

    def _temperature(self, parent: Candidate, _: Measured, __: Sequence[Candidate]) -> Candidate:
        return replace(parent, beta=self.rng.choice(self.betas))

    def _taken_over(self, parent: Candidate, _: Measured, others: Sequence[Candidate]) -> Candidate:
        other = self.rng.choice(others)
        if self.rng.random() < 0.5:
            return replace(parent, weights=other.weights)
        return replace(parent, weights=other.weights, free_below=other.free_below, beta=other.beta)
