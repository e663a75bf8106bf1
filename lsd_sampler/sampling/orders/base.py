"""Orders: which masked positions are revealed first."""

from abc import abstractmethod
from typing import Any, ClassVar

import torch

from ..canvas import StepInput
from ..counts import check_count
from ..plan import StepPlan
from ..step_rule import StepRule


class Order(StepRule):
    """An order that is fixed when a canvas arrives, before any logits are seen."""

    name: ClassVar[str]
    looks_at_logits: ClassVar[bool] = False
    """Whether the positions that a step reveals depend on the logits."""
    looks_at_tokens: ClassVar[bool] = False
    """Whether they depend on the tokens that are drawn. If they do not, a sampler can be forced along a given
    sequence, and the probability with which it makes that sequence is known.
    """
    has_levels: ClassVar[bool] = False
    """Whether it reveals one level after another under `count="levels"`."""
    exchangeable: ClassVar[bool] = False
    """Whether every set of positions of one size is equally likely to come first."""

    @abstractmethod
    def keys(self, u_BL: torch.Tensor, shift_B2: torch.Tensor, canvas_shape: tuple[int, ...]) -> torch.Tensor:
        """Sort keys `(batch_size, seq_len)`: masked positions are revealed in ascending order of their key.

        Args:
            u_BL (`torch.DoubleTensor` of shape `(batch_size, seq_len)`): independent uniforms; inf where nothing is
                masked.
            shift_B2 (`torch.DoubleTensor` of shape `(batch_size, 2)`): two more uniforms for each row.
            canvas_shape: `(seq_len,)` or `(height, width)`.
        """

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        at_BL, v_BL = self.reveals(x, plan)
        return x.reveal(at_BL, v_BL, plan.log_score_coefficient(x.k))

    def reveals(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        """The positions that a step reveals, and the uniforms that decide on their tokens. No token is drawn here.

        Args:
            x, plan: as for `advance`.

        Returns:
            `torch.BoolTensor` and `torch.DoubleTensor`, both of shape `(batch_size, seq_len)`.
        """
        if x.is_last:  # all that is still masked, even a position that a callback masked again
            return x.masked_BL, x.canvas.v_BL
        if plan.counts_jumps:
            x.canvas.survive(plan.jump(x))
        return x.masked_BL & plan.due(x), x.canvas.v_BL

    def check(self, config: Any) -> None:
        if config.count == "levels" and not self.has_levels:
            raise ValueError(
                f"`count` 'levels' reveals one level of an order after another, and `order` {config.order!r} has none:"
                " take `order` 'bisection' or 'dus', or another count."
            )
        check_count(config.count, schedule=(config.schedule, config.schedule == "uniform"))
