"""The cheapest shares of a budget for one number of calls, from costs that were measured once.

Shape suffixes: C candidates, R rows, M calls.
"""

import torch

from ..sampling.position_choice import is_in_nats
from .ranked_costs import RankedCosts


POWERS = (0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
"""Exponents of the share of the calls; the results are shares of the tokens that are known after them."""
RATIOS = (1.3, 1.6, 2.0)
"""Factors from one call's share of all tokens to the next one's."""
EVEN = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Factors of an even part of the entropy that is open at the start."""
_FACTORS = (0.5, 0.7, 0.85, 1.2, 1.4, 2.0)
_DELTAS = (-2, -1, 1, 2)
_MOST_ROUNDS = 25
_MOST_COORDINATES = 16
_LEAST_GAIN = 1e-6


def shares_of_curve(known: torch.Tensor) -> torch.Tensor:
    """Shares of what is open in each call, for shares of all tokens that are known after it, `(..., M)` both."""
    before = torch.nn.functional.pad(known, (1, 0))[..., :-1]
    shares = ((known - before) / (1 - before).clamp(min=1e-9)).clamp(0, 1)
    shares[..., -1] = 1
    return shares


def plain_shares(num_calls: int) -> torch.Tensor:
    """Shares to begin a search with, `(C, M)`."""
    place = torch.arange(1, num_calls + 1, dtype=torch.float64) / num_calls
    curves = [place**power for power in POWERS]
    curves.append(1 - torch.cos(place * torch.pi / 2))
    for ratio in RATIOS:
        steps = ratio ** torch.arange(num_calls, dtype=torch.float64)
        curves.append(steps.cumsum(0) / steps.sum())
    return shares_of_curve(torch.stack(curves))


def plain_bounds(num_calls: int, nats: float) -> torch.Tensor:
    """Bounds in nats to begin a search with, the same in each call, `(C, M)`.

    Args:
        num_calls (`int`): M.
        nats (`float`): entropy of all open positions at the start.
    """
    even = nats / num_calls
    bounds_CM = torch.tensor(EVEN, dtype=torch.float64)[:, None].mul(even).repeat(1, num_calls)
    bounds_CM[:, -1] = 1
    return bounds_CM


def best_shares(
    costs: RankedCosts, budget: str, starts_CM: torch.Tensor, num_starts: int = 2
) -> tuple[torch.Tensor, float]:
    """Shares (or bounds) `(M,)` of the lowest mean cost that steepest descent finds, and that cost in nats per row.

    A round changes the share of one call by a factor or by one position, or those of two calls in a row in opposite
    directions; it takes the best change.

    Args:
        costs ([`RankedCosts`]): what was measured.
        budget (`str`): what a share is a share of.
        starts_CM (`torch.DoubleTensor` of shape `(num_candidates, M)`): where to begin.
        num_starts (`int`): how many of them to begin with, the cheapest ones.
    """
    nats_C = costs.follow(starts_CM, budget)[0].mean(1)
    found: list[tuple[float, torch.Tensor]] = []
    for start in nats_C.argsort()[:num_starts].tolist():
        shares_M, nats = starts_CM[start], float(nats_C[start])
        for _ in range(_MOST_ROUNDS):
            changed_CM = _changed(costs, budget, shares_M)
            if not len(changed_CM):
                break
            changed_C = costs.follow(changed_CM, budget)[0].mean(1)
            best = int(changed_C.argmin())
            if float(changed_C[best]) > nats - _LEAST_GAIN:
                break
            shares_M, nats = changed_CM[best], float(changed_C[best])
        found.append((nats, shares_M))
    nats, shares_M = min(found, key=lambda each: each[0])
    return shares_M, nats


def _changed(costs: RankedCosts, budget: str, shares_M: torch.Tensor) -> torch.Tensor:
    """The neighbours of some shares, `(C, M)`."""
    _, known_RM = (value[0] for value in costs.follow(shares_M[None], budget))
    left_M = costs.start_R.double().mean() - torch.nn.functional.pad(known_RM.mean(0), (1, 0))[:-1]
    return neighbours(shares_M, left_M, budget)


def neighbours(shares_M: torch.Tensor, left_M: torch.Tensor, budget: str) -> torch.Tensor:
    """Shares that differ in one call, or in two in a row, `(C, M)`.

    Args:
        shares_M (`torch.DoubleTensor` of shape `(M,)`): the shares.
        left_M (`torch.DoubleTensor` of shape `(M,)`): mean number of positions that are open in each call.
        budget (`str`): what a share is a share of.
    """
    M, changed = len(shares_M), []
    every = max(1, (M - 1) // _MOST_COORDINATES)
    for k in range(0, M - 1, every):
        block = slice(k, min(k + every, M - 1))
        for factor in _FACTORS:
            changed.append(shares_M.clone())
            changed[-1][block] *= factor
        if budget == "position_shares" and every == 1:
            for delta in _DELTAS:
                moved = whole(shares_M[k], left_M[k], delta)
                changed.append(shares_M.clone())
                changed[-1][k] = moved
                if k + 1 < M - 1:  # the next call takes as many fewer
                    changed.append(shares_M.clone())
                    changed[-1][k] = moved
                    changed[-1][k + 1] = whole(
                        shares_M[k + 1], left_M[k + 1], -delta, (left_M[k + 1] - delta).clamp(1)
                    )
    if not changed:
        return shares_M.new_empty(0, M)
    changed_CM = torch.stack(changed).clamp(0, torch.inf if is_in_nats(budget) else 1)
    changed_CM[:, -1] = 1
    return changed_CM.unique(dim=0)


def whole(share: torch.Tensor, left: torch.Tensor, delta: int, new_left: torch.Tensor | None = None) -> torch.Tensor:
    """The share that takes `delta` positions more; halfway between two numbers, so that rounding up is safe."""
    number = (share * left - 1e-9).ceil() + delta
    return ((number - 0.5) / (left if new_left is None else new_left).clamp(min=1)).clamp(0, 1)
