import torch

from ..noise import NoiseSchedule
from .base import Solver


class Tweedie(Solver):
    """Analytic step (Tweedie tau-leaping), theorem 4.2 of https://huggingface.co/papers/2310.16834. One call a step.

    Exact in the marginals of each position for a normalised denoiser, whatever the size of the step.
    """

    name = "tweedie"

    def score_weight(self, noise: NoiseSchedule, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return torch.expm1(noise.total(t) - noise.total(s))
