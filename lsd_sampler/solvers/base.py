"""What a solver is: how much of the score one step of the reverse process uses."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from ..noise import NoiseSchedule


class Solver(ABC):
    """One update rule of the reverse process under absorbing noise.

    In a step from time t to s < t, a masked position becomes token y with probability `score_weight(t, s) * score_y`.
    """

    name: ClassVar[str]
    evals_per_step: ClassVar[int] = 1
    """Network calls per step."""

    @abstractmethod
    def score_weight(self, noise: NoiseSchedule, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """The factor in front of the concrete score, float64, elementwise in the times `t > s`."""

    def reveal_probability(self, noise: NoiseSchedule, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """Probability that a masked position is revealed between t and s by a normalised denoiser.

        Its score sums to `alpha / (1 - alpha)` over the vocabulary (RADD, https://huggingface.co/papers/2406.03736,
        theorem 1).
        """
        return self.score_weight(noise, t, s) * noise.alpha(t) / noise.masked(t)
