"""Transition times as DNDM's code for translation draws them (https://huggingface.co/papers/2312.09193).

Shape suffixes: B rows, N columns, K calls.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from .draws import Generators, draw_uniforms
from .solvers.dndm import transition_weights


NO_TIME = -1
"""Stands for a column that has no time."""


def draw_times(
    num_rows: int, num_columns: int, num_steps: int, options: Mapping[str, Any], generator: Generators
) -> torch.Tensor:
    """Independent times of columns, with the laws of [`~lsd_sampler.sampling.solvers.dndm.transition_weights`].

    Args:
        num_rows, num_columns (`int`): B and N.
        num_steps (`int`): T.
        options (`dict`): `weights`, `alpha`, `beta` and `training_steps`.
        generator: as for [`~lsd_sampler.sampling.draws.draw_uniforms`].

    Returns:
        `torch.LongTensor` of shape `(num_rows, num_columns)`: from 1 to T, or from 0 to T - 1 where the authors' code
        begins at 0 (`"linear_lambda"`; `"beta"`, if T is below half of `training_steps`).
    """
    cumulative_T = transition_weights(num_steps, options).cumsum(0)
    u_BN = draw_uniforms(num_rows, num_columns, generator, torch.device("cpu"))
    time_BN = torch.searchsorted(cumulative_T, u_BN * cumulative_T[-1], right=True).clamp(max=num_steps - 1) + 1
    begins_at_0 = options["weights"] == "linear_lambda" or (
        options["weights"] == "beta" and 2 * num_steps < options["training_steps"]
    )
    return time_BN - int(begins_at_0)


def draw_continuous_times(
    num_rows: int, num_columns: int, alpha: float, beta: float, generator: Generators
) -> torch.Tensor:
    """Independent draws of Beta(`alpha`, `beta`), float32 of shape `(num_rows, num_columns)`."""
    # torch draws from this law by its global generator alone
    seeds = (draw_uniforms(num_rows, 1, generator, torch.device("cpu")) * 2**53).long().flatten().tolist()
    rows = [np.random.default_rng(seed).beta(alpha, beta, num_columns) for seed in seeds]
    return torch.from_numpy(np.stack(rows)).float()


def times_of_calls(time_BN: torch.Tensor, distinct: bool) -> torch.Tensor:
    """The times at which the network is called for each row, largest first, then `NO_TIME`. `(B, K)`.

    Args:
        time_BN (`torch.Tensor` of shape `(num_rows, num_columns)`): times of columns.
        distinct (`bool`): whether equal times are one call.
    """
    rows = [row[row != NO_TIME] for row in time_BN]
    rows = [(row.unique() if distinct else row.sort().values).flip(0) for row in rows]
    return pad_sequence(rows, batch_first=True, padding_value=NO_TIME)
