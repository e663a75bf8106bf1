"""Time grids `1 = t_0 > t_1 > ... > t_M = eps`, and the states at which a step may begin."""

import functools
from collections.abc import Callable
from typing import Any

import torch

from ..support.registry import Registry
from ..support.validation import check_number
from .noise import NoiseSchedule


def uniform_grid(num_steps: int, eps: float) -> torch.Tensor:
    """Equally spaced times, float64 of shape `(num_steps + 1,)`."""
    return torch.linspace(1.0, eps, num_steps + 1, dtype=torch.float64)


def cosine_grid(num_steps: int, eps: float) -> torch.Tensor:
    """`t = cos(pi k / 2 M)` (MaskGIT, https://huggingface.co/papers/2202.04200): few tokens first, many at the end."""
    angle = torch.linspace(0.0, torch.pi / 2, num_steps + 1, dtype=torch.float64)
    return eps + (1 - eps) * torch.cos(angle)


def arccos_grid(num_steps: int, eps: float) -> torch.Tensor:
    """`t = arccos(k / M) / (pi / 2)` (Halton-MaskGIT, https://huggingface.co/papers/2503.17076): evenly at first, very
    many tokens in the last step.

    Its authors round the number of known tokens down, and reveal at least one in each step. On canvases of up to
    32 x 32 tokens, under log-linear noise, exact counts are within two tokens of theirs as long as there are at least
    1.6 tokens for each step; [`grid_from_counts`] meets any counts exactly.
    """
    share = torch.linspace(0.0, 1.0, num_steps + 1, dtype=torch.float64)
    return eps + (1 - eps) * torch.arccos(share) / (torch.pi / 2)


GRIDS: Registry[Callable[..., torch.Tensor]] = Registry("schedule")
GRIDS.register("uniform", uniform_grid)
GRIDS.register("cosine", cosine_grid)
GRIDS.register("arccos", arccos_grid)


def base_grid(config: Any) -> Callable[[int], torch.Tensor]:
    """The grid that a scheduler's config names, down to its `sampling_eps`.

    Raises:
        ValueError: for an unknown name, or a last time outside (0, 1).
    """
    check_number("sampling_eps", config.sampling_eps, low=0, high=1, open_ends=True)
    return functools.partial(GRIDS[config.schedule], eps=config.sampling_eps)


def grid_from_counts(counts: list[int], noise: NoiseSchedule, eps: float) -> torch.Tensor:
    """Times at which `round(alpha L)` tokens are known, for `counts = [0, ..., L]`. float64 of shape `(len(counts),)`.

    At t = 1 the forward process leaves `alpha(1) > 0` of the tokens unmasked, so a first count below `alpha(1) L` is
    met as nearly as strictly decreasing times allow. The last time is `eps`, or just below the one before it.
    """
    total = counts[-1]
    known = torch.tensor(counts[1:-1], dtype=torch.float64) / total
    floor = float(noise.alpha(1.0))
    # geometric noise never reaches alpha = 1
    times = noise.inverse_alpha(known.clamp(min=floor)).clamp(min=1e-6)
    grid = torch.cat([torch.ones(1, dtype=torch.float64), times, torch.full((1,), eps, dtype=torch.float64)])
    for k in range(1, len(grid)):  # ties with t = 1, or times below eps
        grid[k] = torch.minimum(grid[k], grid[k - 1] * (1 - 1e-6))
    return grid


def replay_states(seq_len: int, num_states: int) -> torch.Tensor:
    """Numbers of known tokens at which a step may begin: all numbers, or about `num_states`, denser at the start,
    where steps are small.

    The length divided by powers of two is always among them, because a low-discrepancy order completes a level there.
    """
    if num_states >= seq_len:
        return torch.arange(seq_len)
    x = torch.arange(num_states, dtype=torch.float64) / num_states
    states = {int(round(seq_len * float(v) ** 1.5)) for v in x}
    levels = {-(-seq_len // 2**k) for k in range(1, seq_len.bit_length())}
    return torch.tensor(sorted(s for s in states | levels | {0} if s < seq_len))
