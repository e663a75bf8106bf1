"""Numbers for a number of steps that was not learned, from those that were."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch

from ..sampling.learned_numbers import LearnedSteps
from ..sampling.noise import NoiseSchedule
from ..sampling.position_choice import PositionChoice, course, shares_of


def known_shares(timesteps: torch.Tensor, noise: NoiseSchedule) -> torch.Tensor:
    """Share of the positions masked at the start that is known when each step begins.

    Args:
        timesteps (`torch.DoubleTensor` of shape `(M + 1,)`): from t_0 to t_M.
        noise ([`NoiseSchedule`]): the forward process.

    Returns:
        `torch.DoubleTensor` of shape `(M,)`, from 0, not decreasing.
    """
    masked_M = noise.masked(timesteps[:-1])
    return 1 - masked_M / masked_M[0]


def interpolated_coefficients(
    learned: Mapping[int, LearnedSteps], timesteps: torch.Tensor, noise: NoiseSchedule
) -> torch.Tensor:
    """Coefficients of the log-score for a number of steps between two that were learned.

    They are a function of the share of known tokens and of the number of steps. They are linear in the share between
    the steps of one grid, and linear in the logarithm of the number of steps between the next two that were learned.
    They are 1 outside of the numbers of steps that were learned.

    Args:
        learned: the sampler's numbers, by number of steps.
        timesteps (`torch.DoubleTensor` of shape `(M + 1,)`): the times of the steps that need coefficients.
        noise ([`NoiseSchedule`]): the forward process.

    Returns:
        `torch.DoubleTensor` of shape `(M,)`.
    """
    M, share_M = len(timesteps) - 1, known_shares(timesteps, noise).numpy()
    around = _around(learned, M)
    if around is None:
        return torch.ones(M, dtype=torch.float64)

    def of(num_steps: int) -> np.ndarray:
        steps = learned[num_steps]
        return np.interp(share_M, known_shares(steps.timesteps, noise), steps.log_score_coefficients)

    low, high = around
    return torch.from_numpy(_between(of(low), of(high), _weight(low, M, high)))


def interpolated_choice(learned: Mapping[int, LearnedSteps], num_steps: int) -> LearnedSteps:
    """Steps of the order `adaptive` for a number of steps that was not learned.

    How the budget is used up over the steps is a curve. It is taken from the nearest numbers
    of steps below and above, linear in the logarithm of the number of steps; so are the times. Where these two differ
    in their budget or their weights, and beyond the numbers that were learned, the nearest one alone gives the curve.
    All other numbers are those of the nearest, the smaller of two equally near ones.

    Args:
        learned: the sampler's numbers, by number of steps; at least one has a choice.
        num_steps (`int`): M.

    Returns:
        [`LearnedSteps`] with coefficients 1.
    """
    known = {n: steps for n, steps in sorted(learned.items()) if steps.choice is not None}
    nearest = min(known, key=lambda n: (abs(math.log(num_steps / n)), n))
    around = _around(known, num_steps)
    used, times = _curves(known[nearest], num_steps)
    if around is not None and _alike(*(_choice(known[n]) for n in around)):
        low, high = around
        pairs = zip(_curves(known[low], num_steps), _curves(known[high], num_steps), strict=True)
        used, times = (_between(*pair, _weight(low, num_steps, high)) for pair in pairs)
    choice = _choice(known[nearest])
    shares = shares_of(torch.from_numpy(used), choice.budget)
    return replace(LearnedSteps.plain(torch.from_numpy(times)), choice=replace(choice, shares=shares))


def _around(learned: Iterable[int], num_steps: int) -> tuple[int, int] | None:
    """The nearest numbers of steps below and above that were learned; None if there are none on one side."""
    numbers = sorted(learned)
    fewer, more = [n for n in numbers if n < num_steps], [n for n in numbers if n > num_steps]
    return (fewer[-1], more[0]) if fewer and more else None


def _weight(low: int, num_steps: int, high: int) -> float:
    """Where a number of steps lies between two others, in the logarithm."""
    return math.log(num_steps / low) / math.log(high / low)


def _between(of_low: np.ndarray, of_high: np.ndarray, weight: float) -> np.ndarray:
    return of_low + weight * (of_high - of_low)  # so that equal ones stay equal to the last bit


def _curves(steps: LearnedSteps, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """How the budget is used up, and the times, over another number of steps."""
    choice = _choice(steps)
    place, own_place = (np.linspace(0, 1, num + 1) for num in (num_steps, len(steps.timesteps) - 1))
    used = course(choice.shares.double(), choice.budget, num_steps)
    return used.numpy(), np.interp(place, own_place, steps.timesteps.numpy())


def _choice(steps: LearnedSteps) -> PositionChoice:
    assert steps.choice is not None
    return steps.choice


def _alike(first: PositionChoice, second: PositionChoice) -> bool:
    """Whether the shares of two choices mean the same."""
    return first.budget == second.budget and bool(torch.equal(first.weights, second.weights))
