"""The learned choice of positions: a score for each masked position, and a budget for each call.

A position is revealed early if its own token is nearly certain, if it hardly depends on those that the call has taken
before, and if it tells much about the others.

Shape suffixes: B batch, L positions, P positions with a margin, W those that depend on one, N picks, M calls.
"""

from dataclasses import dataclass

import numpy as np
import torch

from ..support.validation import check_float
from .dependence import CanvasDependence


WEIGHTS = ("own", "redundancy", "gain", "random", "halton")
"""The terms of the score, in the order in which their weights are kept."""
BUDGETS = ("position_shares", "entropy_shares", "entropy_bounds")
"""What limits a call: a share of the number of open positions, a share of the sum of their entropies, or a sum of
entropies in nats."""
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
            up to whole positions; the last call takes what is left. With the budget `"entropy_bounds"`, nats instead:
            a call takes positions until their entropies add up to as many, as in entropy-bounded unmasking
            ([Ben-Hamu et al. 2025](https://arxiv.org/abs/2505.24857)).
        budget (`str`): one of `BUDGETS`.
    """

    weights: torch.Tensor
    free_below: torch.Tensor
    shares: torch.Tensor
    budget: str = "position_shares"

    def weight(self, name: str) -> float:
        """The weight of a term."""
        return float(self.weights[WEIGHTS.index(name)])

    @property
    def course(self) -> torch.Tensor:
        """How the budget is used up: [`course`]."""
        return course(self.shares.double(), self.budget, len(self.shares))

    @property
    def needs_dependence(self) -> bool:
        """Whether a term of the score asks how positions depend on each other."""
        return self.weight("redundancy") > 0 or self.weight("gain") > 0

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
        if float(self.shares[-1]) != 1:
            raise ValueError(f"{where}.{self.budget}: the last must be 1, for the last call takes all.")
        if not is_in_nats(self.budget) and bool((self.shares > 1).any()):
            raise ValueError(f"{where}.{self.budget} must lie in [0, 1].")


def course(shares_M: torch.Tensor, budget: str, num_calls: int) -> torch.Tensor:
    """How a budget is used up, at the ends of `num_calls` equal parts of its M calls.

    Args:
        shares_M (`torch.DoubleTensor` of shape `(M,)`), budget (`str`): as in [`PositionChoice`].
        num_calls (`int`): N.

    Returns:
        `torch.DoubleTensor`: of shares, what is left open, `(N + 1,)`, from 1 to 0; of nats, how many were spent,
        without the last call, `(N,)`, from 0.
    """
    if is_in_nats(budget):
        curve = torch.nn.functional.pad(shares_M[:-1].cumsum(0), (1, 0))
        num_calls -= 1
    else:
        curve = torch.nn.functional.pad((1 - shares_M).cumprod(0), (1, 0), value=1.0)
    place, own_place = (np.linspace(0, 1, num + 1) for num in (num_calls, len(curve) - 1))
    return torch.from_numpy(np.interp(place, own_place, curve.numpy()))


def shares_of(curve: torch.Tensor, budget: str) -> torch.Tensor:
    """The shares, or nats, of each call that use up a budget along this curve, as from [`course`]."""
    if is_in_nats(budget):
        return torch.nn.functional.pad(curve.diff(), (0, 1), value=1.0)
    shares = (1 - curve[1:] / curve[:-1].clamp(min=1e-12)).clamp(0, 1)
    shares[-1] = 1
    return shares


def is_in_nats(budget: str) -> bool:
    """Whether a budget is a number of nats, and not a share of what is open."""
    return budget == "entropy_bounds"


def in_order(open_BL: torch.Tensor, score_BL: torch.Tensor) -> torch.Tensor:
    """Place of each open position by ascending score, from 0, ties from the left; L elsewhere. `(B, L)`."""
    L = open_BL.shape[1]
    index_BL = score_BL.masked_fill(~open_BL, torch.inf).argsort(dim=1, stable=True)
    place_BL = torch.empty_like(index_BL).scatter_(
        1, index_BL, torch.arange(L, device=index_BL.device).expand_as(index_BL)
    )
    return place_BL.masked_fill_(~open_BL, L)


def apart(
    open_BL: torch.Tensor,
    score_BL: torch.Tensor,
    entropy_BL: torch.Tensor,
    redundancy_B: torch.Tensor,
    dependence: CanvasDependence,
    bucket_B: torch.Tensor,
    num_B: torch.Tensor,
    limit_B: torch.Tensor | None = None,
) -> torch.Tensor:
    """As [`in_order`], but each position that is taken adds to the score of those that depend on it. `(B, L)`.

    Only as many positions as are needed are taken; the others have the place L. All canvases are worked on together.
    The host waits for the device once, and every 16 picks where a limit decides.

    Args:
        open_BL, score_BL, entropy_BL: what may be taken, its score, and its entropy, 0 elsewhere. `(B, L)`.
        redundancy_B (`torch.DoubleTensor` of shape `(batch_size,)`): weight of the entropy in common.
        dependence, bucket_B: the dependence between positions, and the bucket of each canvas.
        num_B (`torch.LongTensor` of shape `(batch_size,)`): how many are needed.
        limit_B (`torch.DoubleTensor` of shape `(batch_size,)`, *optional*): no more are needed once their entropies
            add up to this.
    """
    num_B = num_B.minimum(open_BL.sum(1))
    entropy_BP, score_BP = dependence.laid_out(entropy_BL, 0.0), dependence.laid_out(score_BL, torch.inf)
    score_BP.masked_fill_(~dependence.laid_out(open_BL, False), torch.inf)
    left_BP, spent_B1, weight_B1 = entropy_BP.clone(), torch.zeros_like(redundancy_B)[:, None], redundancy_B[:, None]
    picks = []
    for pick in range(int(num_B.max()) if len(num_B) else 0):
        if limit_B is not None and pick % _PICKS_AT_A_TIME == 0 and bool((spent_B1[:, 0] >= limit_B).all()):
            break
        j_B1 = score_BP.argmin(1, keepdim=True)
        H_B1 = entropy_BP.gather(1, j_B1)
        _take(left_BP, score_BP, H_B1, weight_B1, *dependence.near(j_B1, bucket_B))
        score_BP.scatter_(1, j_B1, torch.inf)
        spent_B1 += H_B1
        picks.append(j_B1)
    return _places(open_BL, picks, dependence, num_B)


def _take(
    left_BP: torch.Tensor,
    score_BP: torch.Tensor,
    H_B1: torch.Tensor,
    weight_B1: torch.Tensor,
    index_BW: torch.Tensor | None,
    kappa_BW: torch.Tensor,
) -> None:
    """Moves what has these entropies in common with others from what is left of those to their scores, in place."""
    if index_BW is None:
        shared_BP = torch.minimum(left_BP, H_B1).mul_(kappa_BW)
        left_BP.sub_(shared_BP)
        score_BP.addcmul_(shared_BP, weight_B1)
    else:
        left_BW = left_BP.gather(1, index_BW)
        shared_BW = torch.minimum(left_BW, H_B1).mul_(kappa_BW)
        left_BP.scatter_(1, index_BW, left_BW.sub_(shared_BW))
        score_BP.scatter_add_(1, index_BW, shared_BW.mul_(weight_B1))


def _places(
    open_BL: torch.Tensor, picks: list[torch.Tensor], dependence: CanvasDependence, num_B: torch.Tensor
) -> torch.Tensor:
    """Place of each position among the first picks of its canvas; L elsewhere. `(B, L)`.

    Picks of a canvas that has nothing left are of positions that are not open, or were taken before.
    """
    L = open_BL.shape[1]
    place_BP = dependence.laid_out(torch.full_like(open_BL, L, dtype=torch.long), L)
    if picks:
        picked_BN = torch.cat(picks, dim=1)
        pick_N = torch.arange(len(picks), device=open_BL.device)
        place_BP.scatter_reduce_(1, picked_BN, pick_N.expand_as(picked_BN), "amin")
    place_BL = dependence.taken_back(place_BP)
    return place_BL.masked_fill(~open_BL | (place_BL >= num_B[:, None]), L)


def num_within(share: float, num_B: torch.Tensor) -> torch.Tensor:
    """How many of `num` positions a share of them is, rounded up. `(B,)`, int64."""
    return (share * num_B.double() - _EPS).ceil().long().clamp(min=0)


def mass_within(share: float, mass_BL: torch.Tensor) -> torch.Tensor:
    """A share of the mass of each row, less what rounding may add. `(B,)`."""
    return share * (1 - _EPS) * mass_BL.sum(1)


def nats_within(nats: float, mass_BL: torch.Tensor) -> torch.Tensor:
    """The same limit for each row, in nats. `(B,)`."""
    return torch.full_like(mass_BL[:, 0], nats)


def within(place_BL: torch.Tensor, mass_BL: torch.Tensor, limit_B: torch.Tensor) -> torch.Tensor:
    """Which positions are taken before the mass of those at earlier places reaches the limit. `(B, L)`, bool.

    Args:
        place_BL: from [`in_order`] or [`apart`].
        mass_BL (`torch.DoubleTensor` of shape `(batch_size, seq_len)`): 0 where nothing is open.
        limit_B (`torch.DoubleTensor` of shape `(batch_size,)`): from [`mass_within`] or [`nats_within`].
    """
    L = place_BL.shape[1]
    index_BL = place_BL.argsort(dim=1, stable=True)
    # added up one by one, as by `apart`
    before_BL = torch.nn.functional.pad(mass_BL.gather(1, index_BL).cumsum(1)[:, :-1], (1, 0))
    is_before_BL = torch.zeros_like(mass_BL).scatter(1, index_BL, before_BL) < limit_B[:, None]
    return (place_BL < L) & is_before_BL
