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
    of a generation is `x.noise.state`, which ends with the generation: a solver itself has no state.

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
