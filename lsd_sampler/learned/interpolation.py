"""Coefficients of the log-score as a function of what is known: the same one for a grid of any number of steps."""

import math
from collections.abc import Mapping

import numpy as np
import torch

from ..sampling.learned_numbers import LearnedSteps
from ..sampling.noise import NoiseSchedule


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
    fewer, more = (n for n in learned if n < M), (n for n in learned if n > M)
    low, high = max(fewer, default=None), min(more, default=None)
    if low is None or high is None:
        return torch.ones(M, dtype=torch.float64)

    def of(num_steps: int) -> np.ndarray:
        steps = learned[num_steps]
        return np.interp(share_M, known_shares(steps.timesteps, noise), steps.log_score_coefficients)

    weight = math.log(M / low) / math.log(high / low)
    # so that equal ones stay equal to the last bit
    return torch.from_numpy(of(low) + weight * (of(high) - of(low)))
