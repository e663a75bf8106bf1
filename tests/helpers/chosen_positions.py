"""The order `adaptive`: learned numbers of it, and its choice written out slowly from the formulas."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.dependence import Dependence
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
from lsd_sampler.sampling.position_choice import PositionChoice


BUDGETS = ("position_shares", "entropy_shares", "entropy_bounds")
LAYOUTS = ("matrix", "offset", "offset_2d")
NAMES = ("own", "redundancy", "gain", "random", "halton")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_kappa(layout: str, shape: tuple[int, ...], seed: int = 0, num_buckets: int = 3) -> Dependence:
    """A dependence without any regularity but the symmetry that it must have."""
    L = math.prod(shape)
    sizes = {"matrix": (L, L), "offset": (L,), "offset_2d": shape}[layout]
    kappa = torch.rand(num_buckets, *sizes, generator=seeded(seed), dtype=torch.float64)
    return Dependence((kappa + kappa.mT) / 2 if layout == "matrix" else kappa, layout)


def random_weights(seed: int) -> torch.Tensor:
    return torch.rand(5, generator=seeded(seed), dtype=torch.float64) * 2


def make_choice(
    shares: Sequence[float], budget: str = BUDGETS[0], free_below: float = 0.0, weights: Any = None, **named: float
) -> PositionChoice:
    """A choice with these weights: all, or some by name and 0 for the others."""
    if weights is None:
        weights = torch.tensor([named.get(name, 0.0) for name in NAMES], dtype=torch.float64)
    free, parts = (torch.tensor(value, dtype=torch.float64) for value in (free_below, list(shares)))
    return PositionChoice(weights, free, parts, budget)


def one_a_call(length: int, budget: str) -> list[float]:
    """Shares with which a call takes one position, if each has more than a thousandth of the entropy, or of
    a nat.
    """
    if budget != "position_shares":
        return [1e-3] * (length - 1) + [1.0]
    return [1 / (length - k) for k in range(length)]


def steps_with(choice: PositionChoice) -> LearnedSteps:
    M = len(choice.shares)
    times = torch.linspace(1, 1e-4, M + 1, dtype=torch.float64)
    return LearnedSteps(times, *torch.ones(2, M, dtype=torch.float64), choice)


def adaptive(choices: Sequence[PositionChoice], dependence: Dependence | None = None, **config: Any) -> LSDScheduler:
    """A scheduler of the order `adaptive` that learned these choices."""
    scheduler = LSDScheduler(**{"order": "adaptive", **config})
    steps = {len(choice.shares): steps_with(choice) for choice in choices}
    scheduler.set_learned_sampler(LearnedSampler(steps, dependence=dependence))
    return scheduler


def kappa_between(dependence: Dependence, shape: tuple[int, ...], num_known: int) -> list[list[float]]:
    """Kappa of each pair of positions, as the description of the layouts says."""
    L, K = math.prod(shape), len(dependence.kappa)
    bucket = min(K - 1, num_known * K // L)
    kappa, width = dependence.kappa[bucket].tolist(), shape[-1]

    def between(i: int, j: int) -> float:
        if i == j:
            return 0.0
        if dependence.layout == "matrix":
            return kappa[i][j]
        if dependence.layout == "offset":
            return kappa[abs(i - j)] if abs(i - j) < len(kappa) else 0.0
        rows, columns = abs(i // width - j // width), abs(i % width - j % width)
        return kappa[rows][columns] if rows < len(kappa) and columns < len(kappa[0]) else 0.0

    return [[between(i, j) for j in range(L)] for i in range(L)]


def chosen_by_hand(
    entropies: Sequence[float],
    masked: Sequence[bool],
    kappa: Sequence[Sequence[float]],
    choice: PositionChoice,
    call: int,
    random_order: Sequence[int],
    halton_order: Sequence[int],
) -> set[int]:
    """The positions of one call of one sequence, one after another.

    Args:
        entropies: H of each position; masked: whether it is masked; kappa: of each pair.
        choice, call: the learned numbers, and which call it is.
        random_order, halton_order: all positions in these orders.
    """
    weight = dict(zip(NAMES, choice.weights.tolist(), strict=True))
    positions = [i for i in range(len(masked)) if masked[i]]
    free = {i for i in positions if entropies[i] < max(1e-5, float(choice.free_below))}
    left = [i for i in positions if i not in free]
    if not left:
        return free
    n, H = len(left), {i: entropies[i] for i in left}
    mean = sum(H.values()) / n
    places = {
        name: {i: place / n for place, i in enumerate(i for i in order if i in H)}
        for name, order in (("random", random_order), ("halton", halton_order))
    }
    gain = {i: sum(kappa[i][j] * min(H[i], H[j]) for j in H) / n for i in H}
    fixed = {
        i: weight["own"] * H[i] / mean
        - weight["gain"] * gain[i] / mean
        + sum(weight[name] * places[name][i] for name in places)
        for i in H
    }
    by_nats = choice.budget != "position_shares"
    whole = {"position_shares": n, "entropy_shares": sum(H.values()), "entropy_bounds": 1}[choice.budget]
    limit = float(choice.shares[call]) * whole
    residual, taken, spent = dict(H), [], 0.0
    while left and spent < limit - 1e-9:
        j = min(left, key=lambda i: fixed[i] + weight["redundancy"] * (H[i] - residual[i]) / mean)
        left.remove(j)
        taken.append(j)
        spent += H[j] if by_nats else 1
        for i in left:
            residual[i] -= kappa[i][j] * min(residual[i], H[j])
    return free | set(taken)
