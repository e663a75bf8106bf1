import torch

from ..corruptions import Corruption
from ..noise import NoiseSchedule
from .base import UpdateRule


class Tweedie(UpdateRule):
    """Analytic step (Tweedie tau-leaping), theorem 4.2 of https://huggingface.co/papers/2310.16834. One call a step.

    Exact in the marginals of each position for a normalised denoiser, whatever the size of the step.
    """

    name = "tweedie"

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
        return corruption.posterior(prediction_RV, x_R, float(noise.total(t)), float(noise.total(s)), prediction_type)
