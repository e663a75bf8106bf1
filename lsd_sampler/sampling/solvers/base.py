"""What a solver is: when the network is called, and how much of the score one step of the reverse process uses."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch

from ..corruptions import Corruption
from ..noise import NoiseSchedule
from .options import Option, read_options


class Solver(ABC):
    """How the reverse process is discretised.

    Under absorbing noise, in a step from time t to s < t, a masked position becomes token y with probability
    `score_weight(t, s) * score_y`. For an [`UpdateRule`] that is the step; for an
    [`~lsd_sampler.sampling.solvers.OwnStep`] it decides the counts of the schedule.
    """

    name: ClassVar[str]
    evals_per_step: ClassVar[int] = 1
    """Network calls per step."""
    distillable: ClassVar[bool]
    """Whether times and coefficients can be learned for it."""
    options: ClassVar[Mapping[str, Option]] = {}
    """Its constants, by name."""

    @classmethod
    def read_options(cls, given: Any) -> dict[str, Any]:
        """All of its constants: those that are given, and the defaults of the others.

        Raises:
            ValueError: for an unknown name, or a value out of range.
        """
        return read_options(cls.name, cls.options, given)

    def calls(
        self, grid: Callable[[int], torch.Tensor], num_calls: int, options: Mapping[str, Any]
    ) -> tuple[torch.Tensor, list[int]]:
        """Times of the network calls and of the end, float64 of shape `(num_calls + 1,)`, decreasing; and the place of
        each call in its step, which is 0 for a call that begins a step.

        Args:
            grid: maps a number of steps n to the `n + 1` times between them.
            num_calls (`int`): M.
            options: as from `read_options`.
        """
        return grid(num_calls), [0] * num_calls

    def score_weight(self, noise: NoiseSchedule, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """The factor in front of the concrete score, float64, elementwise in the times `t > s`; here that of the
        analytic step (theorem 4.2 of https://huggingface.co/papers/2310.16834), which is exact in the marginals.
        """
        return torch.expm1(noise.total(t) - noise.total(s))

    def reveal_probability(self, noise: NoiseSchedule, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """Probability that a masked position is revealed between t and s by a normalised denoiser.

        Its score sums to `alpha / (1 - alpha)` over the vocabulary (RADD, https://huggingface.co/papers/2406.03736,
        theorem 1).
        """
        return self.score_weight(noise, t, s) * noise.alpha(t) / noise.masked(t)


class UpdateRule(Solver):
    """A solver that leaves positions to the `order` and `count` of the scheduler. Times and coefficients can be
    learned for it. Under noise without a mask every token moves by its `law`.
    """

    distillable = True

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

        Rows need not be laws if the score does not belong to one or the step is too large: entries may be negative.
        """
