"""Orders that reveal one level of positions after another.

Shape suffixes: B batch, L positions, J levels.
"""

from abc import abstractmethod

import torch

from ..canvas import StepInput
from ..plan import StepPlan
from .base import Order


class LevelOrder(Order):
    """Positions by levels, in random order inside a level.

    With `count="levels"` each call reveals one level. The generation then takes as many calls as there are levels, if
    `num_inference_steps` allows them; the last call reveals whatever is left. Other counts cut the same order into
    exactly `num_inference_steps` calls.
    """

    has_levels = True
    skips_complete = True  # sequences with fewer masks have fewer levels

    @abstractmethod
    def levels(self, masked_BL: torch.Tensor) -> torch.Tensor:
        """The level of each masked position, from 0, without gaps. `torch.LongTensor`, `(batch_size, seq_len)`.

        Args:
            masked_BL (`torch.BoolTensor` of shape `(batch_size, seq_len)`): what is masked at the start. Elsewhere the
                result means nothing.
        """

    def keys(self, u_BL: torch.Tensor, shift_B2: torch.Tensor, canvas_shape: tuple[int, ...]) -> torch.Tensor:
        return self.levels(u_BL < torch.inf) + u_BL

    def reveals(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        if plan.count != "levels" or x.is_last:
            return super().reveals(x, plan)
        if x.canvas.state is None:
            x.canvas.state = self.levels(x.canvas.masked_BL)
        return x.masked_BL & (x.canvas.state <= x.k - x.canvas.start), x.canvas.v_BL


def dilated_levels(masked_BL: torch.Tensor, base: int = 2, skip: int = 1) -> torch.Tensor:
    """Levels of a grid whose spacing shrinks: a first spacing of `n // base^skip` on the n positions from the first to
    the last masked one, divided by `base` from level to level; what is left is one more level. As in the authors' code
    (https://huggingface.co/papers/2506.19037) it joins the level before it, if it is smaller. `(B, L)`.
    """
    place_L = torch.arange(masked_BL.shape[1], device=masked_BL.device)
    first_B = masked_BL.int().argmax(1)
    span_B = torch.where(masked_BL, place_L - first_B[:, None] + 1, 0).amax(1)
    # base^skip above any length is the same as the length
    stride_B = span_B // min(base**skip, masked_BL.shape[1] + 1) if base > 1 else torch.zeros_like(span_B)
    level_BL, level = torch.full_like(masked_BL, -1, dtype=torch.long), 0
    while bool((stride_B > 0).any()):
        on_grid_BL = (place_L - first_B[:, None]) % stride_B.clamp(min=1)[:, None] == 0
        level_BL = torch.where((level_BL < 0) & on_grid_BL & (stride_B > 0)[:, None], level, level_BL)
        stride_B, level = stride_B // base, level + 1
    return joined_if_smaller(without_gaps(torch.where(level_BL < 0, level, level_BL), masked_BL), masked_BL)


def midpoint_levels(masked_BL: torch.Tensor) -> torch.Tensor:
    """Levels of midpoints: the middle of each run of masked positions, then the middles of the runs that are left, and
    so on. `(B, L)`.
    """
    place_L = torch.arange(masked_BL.shape[1], device=masked_BL.device)
    level_BL, left_BL, level = torch.zeros_like(masked_BL, dtype=torch.long), masked_BL, 0
    while bool(left_BL.any()):
        start_BL = torch.where(left_BL, 0, place_L + 1).cummax(1).values
        end_BL = torch.where(left_BL, len(place_L) - 1, place_L - 1).flip(1).cummin(1).values.flip(1)
        middle_BL = left_BL & (place_L == (start_BL + end_BL) // 2)
        level_BL, left_BL, level = level_BL.masked_fill(middle_BL, level), left_BL & ~middle_BL, level + 1
    return level_BL


def without_gaps(level_BL: torch.Tensor, masked_BL: torch.Tensor) -> torch.Tensor:
    """The same levels, numbered without those that hold no masked position."""
    filled_BJ = level_sizes(level_BL, masked_BL) > 0
    return (filled_BJ.cumsum(1) - 1).clamp(min=0).gather(1, level_BL)


def level_sizes(level_BL: torch.Tensor, masked_BL: torch.Tensor) -> torch.Tensor:
    """How many masked positions each level has, `(B, J)`."""
    size_BJ = level_BL.new_zeros(len(level_BL), int(level_BL.max()) + 1 if level_BL.numel() else 1)
    return size_BJ.scatter_add(1, level_BL, masked_BL.long())


def joined_if_smaller(level_BL: torch.Tensor, masked_BL: torch.Tensor) -> torch.Tensor:
    """The same levels, but a last one that is smaller than the one before it joins that one. `(B, L)`."""
    size_BJ = level_sizes(level_BL, masked_BL)
    last_B1 = (size_BJ > 0).sum(1, keepdim=True).clamp(min=2) - 1
    if size_BJ.shape[1] < 2:
        return level_BL
    joins_B1 = size_BJ.gather(1, last_B1) < size_BJ.gather(1, last_B1 - 1)
    return torch.where(joins_B1 & (level_BL == last_B1), last_B1 - 1, level_BL)
