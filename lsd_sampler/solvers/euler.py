import torch

from ..noise import NoiseSchedule
from .base import Solver


class Euler(Solver):
    """Euler step of the reverse CTMC (tau-leaping), eq. 4 of https://huggingface.co/papers/2509.19962. One call a
    step.

    Under log-linear noise it is the same kernel as Tweedie's.
    """

    name = "euler"

    def score_weight(self, noise: NoiseSchedule, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return (t - s) * noise.rate(t)
