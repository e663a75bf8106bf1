"""What a solver is: how much of the score one step of the reverse process uses."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch

from ..corruptions import Corruption
from ..noise import NoiseSchedule
from .options import Option, read_options


class Solver(ABC):
    """One update rule of the reverse process.

    Under absorbing noise, in a step from time t to s < t, a masked position becomes token y with probability
    `score_weight(t, s) * score_y`; under other noise every token moves by `law`.
    """

    name: ClassVar[str]
    evals_per_step: ClassVar[int] = 1
    """Network calls per step."""
    distillable: ClassVar[bool] = True
    """Whether times and coefficients can be learned for it."""
    options: ClassVar[Mapping[str, Option]] = {}
    """Its constants, by name."""

    @classmethod
    def read_options(cls, given: Any) -> dict[str, Any]:
        """All of its constants: those that were given, and the defaults of the others.

        Raises:
            ValueError: for an unknown name, or a value out of range.
        """
        return read_options(cls.name, cls.options, given)

    def calls(
        self, grid: Callable[[int], torch.Tensor], num_calls: int, options: Mapping[str, Any]
    ) -> tuple[torch.Tensor, list[int]]:
        """Times of so many network calls and of the end, float64 of shape `(num_calls + 1,)`, decreasing; and the
        place of each call in its step: 0 for one that begins a step.

        Args:
            grid: from a number of steps n to the `n + 1` times between which they go.
            num_calls (`int`): M.
            options: as from `read_options`.
        """
        return grid(num_calls), [0] * num_calls

    @abstractmethod
    def score_weight(self, noise: NoiseSchedule, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """The factor in front of the concrete score, float64, elementwise in the times `t > s`."""

    def reveal_probability(self, noise: NoiseSchedule, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """Probability that a masked position is revealed between t and s by a normalised denoiser.

        Its score sums to `alpha / (1 - alpha)` over the vocabulary (RADD, https://huggingface.co/papers/2406.03736,
        theorem 1).
        """
        return self.score_weight(noise, t, s) * noise.alpha(t) / noise.masked(t)

    @abstractmethod
    def law(
        self,
        corruption: Corruption,
        noise: NoiseSchedule,
        prediction_RV: torch.Tensor,
        x_R: torch.Tensor,
        t: float,
        s: float,
        prediction_type: str,
    ) -> torch.Tensor:
        """Law of each token at time s, given x and a prediction (as in `Corruption`) at time t. `(R, V)` float64.

        Rows need not be laws where the score belongs to none or the step is too large: entries may be negative.
        """
