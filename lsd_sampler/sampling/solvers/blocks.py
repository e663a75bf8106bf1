"""Blocks of a canvas, from left to right, for solvers that go through them by themselves.

Shape suffixes: B batch, L positions.
"""

from dataclasses import dataclass

import torch

from ..canvas import StepInput
from ..plan import StepPlan


@dataclass(frozen=True)
class Block:
    """The block in which each sequence is: the first one that holds a mask.

    Args:
        id_B (`torch.LongTensor` of shape `(batch_size,)`): its number.
        active_BL (`torch.BoolTensor` of shape `(batch_size, seq_len)`): its masked positions.
        step_B, share_B (`torch.LongTensor`): how many calls it had before this one, and how many it may have.
        size_B (`torch.LongTensor`): how many masks it held before its first call.
    """

    id_B: torch.Tensor
    active_BL: torch.Tensor
    step_B: torch.Tensor
    share_B: torch.Tensor
    size_B: torch.Tensor

    @property
    def is_last_B(self) -> torch.Tensor:
        """Whether this call is the block's last."""
        return self.step_B >= self.share_B - 1


def current_block(x: StepInput, plan: StepPlan, length: int, before: Block | None) -> Block:
    """The block of this step.

    Blocks are counted from the first position that was masked at the start. They share the calls equally, and the
    first ones have one more if need be. A sequence goes on to its next block as soon as one is full.

    Args:
        x, plan: of the step.
        length (`int`): positions of a block; 0: all.
        before ([`Block`], *optional*): what this function returned for the step before.

    Raises:
        ValueError: if there are more blocks than calls.
    """
    mine_BL, place_L = x.canvas.masked_BL, torch.arange(x.masked_BL.shape[1], device=x.masked_BL.device)
    place_BL = (place_L - mine_BL.int().argmax(1)[:, None]).clamp(min=0)
    id_BL = place_BL // (length or len(place_L))
    num_B = torch.where(mine_BL, id_BL + 1, 1).amax(1)
    num_calls = len(plan.places) - x.canvas.start
    if int(num_B.max()) > num_calls:
        raise ValueError(
            f"`solver_options['block_length']` {length} makes {int(num_B.max())} blocks, and {num_calls} calls are too"
            " few for them: take more steps, or longer blocks."
        )
    id_B = torch.where(x.masked_BL & mine_BL, id_BL, len(place_L)).amin(1)
    active_BL = x.masked_BL & (id_BL == id_B[:, None])
    step_B, size_B = torch.zeros_like(id_B), active_BL.sum(1)
    if before is not None:
        goes_on_B = before.id_B == id_B
        step_B = torch.where(goes_on_B, before.step_B + 1, step_B)
        size_B = torch.where(goes_on_B, before.size_B, size_B)
    share_B = num_calls // num_B + (id_B < num_calls % num_B)
    return Block(id_B, active_BL, step_B, share_B, size_B)
