"""Solvers that choose positions and tokens themselves.

Shape suffixes: B batch, L positions.
"""

from typing import Any

import torch

from ..canvas import StepInput
from ..corruptions import CORRUPTIONS
from ..counts import check_count
from ..step_rule import StepRule
from .base import Solver


class OwnStep(StepRule, Solver):
    """A solver under absorbing noise that decides itself which positions are revealed, or masked again.

    It looks only at positions that were masked at the start, and reveals all of them by the last step. It draws afresh
    at every step. The solver itself has no state: `x.canvas.state` holds what it remembers of a generation, and ends
    with it. The number of tokens that the schedule asks for (`plan.num_known`, `plan.jump`) is Tweedie's.

    It ignores the scheduler's `order` and `count`, and no times or coefficients are learned for it.
    """

    distillable = False
    skips_complete = True

    def check(self, config: Any) -> None:
        if config.order != "random":
            raise ValueError(
                f"`order` {config.order!r} has no meaning for the solver {config.solver!r}, which chooses positions"
                " itself."
            )
        check_count(config.count, solver=(config.solver, False))
        if not CORRUPTIONS[config.corruption].absorbing:
            raise ValueError(
                f"`solver` {config.solver!r} is for absorbing noise; under {config.corruption} noise all tokens move."
            )


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
