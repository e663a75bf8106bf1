"""What a solver is that chooses positions and tokens itself.

Shape suffixes: B batch, L positions.
"""

from abc import abstractmethod
from typing import ClassVar

import torch

from ..canvas import StepInput
from ..plan import StepPlan
from .tweedie import Tweedie


class OwnStep(Tweedie):
    """A solver under absorbing noise whose step is its own: it says which positions are revealed, or masked again.

    Where it has no rule of its own it goes by Tweedie's step. It looks only at positions that were masked at the
    start, and reveals all of them by the last step. What it draws, it draws afresh at every step. What it remembers
    of a generation is `x.canvas.state`, which ends with the generation: a solver itself has no state.

    `order` and `count` of the scheduler say nothing to it, and no times or coefficients are learned for it.
    """

    distillable = False
    reads_known: ClassVar[bool] = False
    """Whether it reads the logits of positions that are known."""

    @abstractmethod
    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        """The next canvas, and the probability with which each token revealed in it was drawn (0 elsewhere). Both
        `(B, L)`.
        """


def exchange(
    x: StepInput, reveal: float | torch.Tensor, remask: float | torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Reveals masked positions and masks known ones again, each with its own probability (a number, or `(B, L)`).

    The last step reveals all and masks none. Returns what `OwnStep.advance` does.
    """
    v_BL, reveal_BL, remask_BL = x.uniforms(3)
    due_BL = x.masked_BL if x.is_last else x.masked_BL & (reveal_BL < reveal)
    next_BL, probability_BL = x.reveal(due_BL, v_BL)
    if not x.is_last:
        again_BL = x.canvas.masked_BL & ~x.masked_BL & (remask_BL < remask)
        next_BL = next_BL.masked_fill(again_BL, x.mask_token_id)
    return next_BL, probability_BL
