"""The learned choice of positions: a score for each masked position, and a budget for each call.

A position is revealed early if its own token is nearly certain, if it is nearly independent of what the call takes
already, and if it tells much about the others. Shape suffixes: B batch, L positions, M calls.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..support.validation import check_float


WEIGHTS = ("own", "redundancy", "gain", "random", "halton")
"""The terms of the score, in the order in which their weights are kept."""
BUDGETS = ("position_shares", "entropy_shares")
"""What the share of a call is a share of: the number of open positions, or the sum of their entropies."""
_PICKS_AT_A_TIME = 16
_EPS = 1e-9


@dataclass(frozen=True)
class PositionChoice:
    """What decides the positions of each of M calls.

    The open positions, masked ones that are not free, are taken in ascending order of

        own H_i / H  +  redundancy r_i / H  -  gain g_i / (n H)  +  random a_i  +  halton b_i

    with H_i the entropy of position i, H its mean over the n open positions, r_i the entropy that the positions taken
    before in this call have in common with it, g_i what it would tell about the others (both by
    [`~lsd_sampler.sampling.dependence.Dependence`]), and a_i, b_i in [0, 1) its place in a random and in a
    low-discrepancy order.

    Args:
        weights (`torch.DoubleTensor` of shape `(5,)`): of the terms, in the order of `WEIGHTS`.
        free_below (`torch.DoubleTensor` of shape `()`): positions of a smaller entropy, in nats, are free: they are
            revealed whatever the budget.
        shares (`torch.DoubleTensor` of shape `(M,)`): of what is open in each call, the share that it takes, rounded
            up to whole positions; the last call takes what is left.
        budget (`str`): one of `BUDGETS`.
    """

    weights: torch.Tensor
    free_below: torch.Tensor
    shares: torch.Tensor
    budget: str = "position_shares"

    def weight(self, name: str) -> float:
        """The weight of a term."""
        return float(self.weights[WEIGHTS.index(name)])

    def check(self, where: str, num_calls: int) -> None:
        """Raises `ValueError`, naming `where` and the culprit, unless all numbers are usable."""
        shapes = {"weights": (len(WEIGHTS),), "free_below": (), "shares": (num_calls,)}
        keys = {"weights": "choice_weights", "free_below": "free_below", "shares": self.budget}
        for name, expected in shapes.items():
            tensor, key = getattr(self, name), f"{where}.{keys[name]}"
            if tuple(tensor.shape) != expected:
                raise ValueError(f"{key} must have shape {expected}, got {tuple(tensor.shape)}.")
            check_float(tensor, key)
            if bool((tensor < 0).any()):
                raise ValueError(f"{key} must be >= 0.")
        if bool((self.shares > 1).any()) or float(self.shares[-1]) != 1:
            raise ValueError(f"{where}.{self.budget} must lie in [0, 1], and the last must be 1.")


def in_order(open_BL: torch.Tensor, score_BL: torch.Tensor) -> torch.Tensor:
    """Place of each open position by ascending score, from 0, ties from the left; L elsewhere. `(B, L)`."""
    place_BL = score_BL.masked_fill(~open_BL, torch.inf).argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    return place_BL.masked_fill(~open_BL, open_BL.shape[1])


def apart(
    open_BL: torch.Tensor,
    score_BL: torch.Tensor,
    entropy_BL: torch.Tensor,
    redundancy_B: torch.Tensor,
    dependence_of: Callable[[torch.Tensor], torch.Tensor],
    num_B: torch.Tensor,
    mass_BL: torch.Tensor | None = None,
    limit_B: torch.Tensor | None = None,
) -> torch.Tensor:
    """As [`in_order`], but each position that is taken adds to the score of those that depend on it. `(B, L)`.

    Positions that are not taken have the place L. All rows are worked on together, and no pick waits for the device.

    Args:
        open_BL, score_BL, entropy_BL: what may be taken, its score, and its entropy, 0 elsewhere. `(B, L)`.
        redundancy_B (`torch.DoubleTensor` of shape `(batch_size,)`): weight of the entropy in common.
        dependence_of: from positions `(B,)` to the dependence of all positions on them, `(B, L)`.
        num_B (`torch.LongTensor` of shape `(batch_size,)`): the most positions to take.
        mass_BL, limit_B (*optional*): take no more once the mass of what is taken reaches the limit.
    """
    B, L = open_BL.shape
    place_BL, residual_BL = torch.full_like(open_BL, L, dtype=torch.long), entropy_BL.clone()
    score_BL = score_BL.masked_fill(~open_BL, torch.inf)
    spent_B, row_B = torch.zeros_like(redundancy_B), torch.arange(B, device=open_BL.device)
    num_B = num_B.minimum(open_BL.sum(1))
    for pick in range(int(num_B.max()) if B else 0):
        going_B = num_B > pick
        if limit_B is not None:
            going_B = going_B & (spent_B < limit_B)
            if pick % _PICKS_AT_A_TIME == 0 and not bool(going_B.any()):
                break
        j_B = score_BL.argmin(1)
        place_BL[row_B, j_B] = torch.where(going_B, pick, place_BL[row_B, j_B])
        if mass_BL is not None:
            spent_B = spent_B + mass_BL[row_B, j_B] * going_B
        shared_BL = torch.minimum(residual_BL, entropy_BL[row_B, j_B][:, None]) * dependence_of(j_B)
        shared_BL = shared_BL * going_B[:, None]
        residual_BL = residual_BL - shared_BL
        score_BL = score_BL + redundancy_B[:, None] * shared_BL
        score_BL[row_B, j_B] = torch.where(going_B, torch.inf, score_BL[row_B, j_B])
    return place_BL


def num_within(share: float, num_B: torch.Tensor) -> torch.Tensor:
    """How many of `num` positions a share of them is, rounded up. `(B,)`, int64."""
    return (share * num_B.double() - _EPS).ceil().long().clamp(min=0)


def within(place_BL: torch.Tensor, mass_BL: torch.Tensor, limit_B: torch.Tensor) -> torch.Tensor:
    """Which positions are taken before the mass of those at earlier places reaches the limit. `(B, L)`, bool.

    Args:
        place_BL: from [`in_order`].
        mass_BL (`torch.DoubleTensor` of shape `(batch_size, seq_len)`): 0 where nothing is open.
        limit_B (`torch.DoubleTensor` of shape `(batch_size,)`): the limit.
    """
    L = place_BL.shape[1]
    index_BL = place_BL.argsort(dim=1, stable=True)
    sorted_BL = mass_BL.gather(1, index_BL)
    before_BL = torch.zeros_like(mass_BL).scatter(1, index_BL, sorted_BL.cumsum(1) - sorted_BL)
    return (place_BL < L) & (before_BL < limit_B[:, None] - _EPS)
