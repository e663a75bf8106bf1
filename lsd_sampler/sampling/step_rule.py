"""What a step is: one rule, from the network's output to the next canvas.

Shape suffixes: B batch, L positions.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch

from .canvas import StepInput
from .plan import StepPlan


class StepRule(ABC):
    """The rule by which a scheduler makes a step.

    There are orders ([`~lsd_sampler.sampling.orders.Order`]), solvers that take steps of their own
    ([`~lsd_sampler.sampling.solvers.OwnStep`]), moves of tokens where nothing is masked, and draws as in released
    code; [`~lsd_sampler.sampling.rules.make_step_rule`] takes the one that a config asks for. A rule has no state:
    what it remembers of a generation is `x.canvas.state`.
    """

    has_mask: ClassVar[bool] = True
    """Whether it reveals what is masked; otherwise every token may move in every step."""
    skips_complete: ClassVar[bool] = False
    """Whether sequences may be complete at different steps, and then need no further network call."""

    reads_shadow: ClassVar[bool] = False
    """Whether a step reads `shadow_output`, the prediction of each position from all tokens but its own."""
    takes_gap: ClassVar[bool] = False
    """Whether it keeps a `minimal_gap` between the positions of one step."""

    def keys(self, u_BL: torch.Tensor, shift_B2: torch.Tensor, canvas_shape: tuple[int, ...]) -> torch.Tensor:
        """Sort keys `(batch_size, seq_len)`: masked positions rank in ascending order of their key; here at random.

        Args:
            u_BL (`torch.DoubleTensor` of shape `(batch_size, seq_len)`): independent uniforms; inf where nothing is
                masked.
            shift_B2 (`torch.DoubleTensor` of shape `(batch_size, 2)`): two more uniforms for each row.
            canvas_shape: `(seq_len,)` or `(height, width)`.
        """
        return u_BL

    @abstractmethod
    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        """The next canvas, and the probability with which each token revealed in it was drawn (0 elsewhere). Both
        `(B, L)`.
        """

    @abstractmethod
    def check(self, config: Any) -> None:
        """Raises `ValueError` if another entry of a scheduler's config contradicts this rule."""
