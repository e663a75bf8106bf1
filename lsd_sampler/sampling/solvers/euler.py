import torch

from ..corruptions import Corruption
from ..noise import NoiseSchedule
from .base import UpdateRule


class Euler(UpdateRule):
    """Euler step of the reverse CTMC (tau-leaping), eq. 4 of https://huggingface.co/papers/2509.19962. One call a
    step.

    Under log-linear noise it is the same kernel as Tweedie's.
    """

    name = "euler"

    def score_weight(self, noise: NoiseSchedule, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return (t - s) * noise.rate(t)

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
        score_RV = corruption.score(prediction_RV, x_R, float(noise.total(t)), prediction_type)
        moves_RV = (t - s) * float(noise.rate(t)) * corruption.reverse_rates(score_RV, x_R)
        return moves_RV.scatter(1, x_R[:, None], 1 - moves_RV.sum(-1, keepdim=True))
