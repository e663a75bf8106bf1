import torch

from ..random import gumbel
from .base import Order


class ConfidenceOrder(Order):
    """Most confident first (MaskGIT, LLaDA): by the log-probability of the drawn token plus annealed Gumbel noise, at
    each step.

    Tokens are drawn afresh at every step for all masked positions, so the law of the samples is not that of the
    denoiser even with one token a step: unlikely tokens are drawn again. A step reads the logits of every masked
    position.
    """

    name = "confidence"
    looks_at_logits = True

    def keys(self, u_BL: torch.Tensor, shift_B2: torch.Tensor, canvas_shape: tuple[int, ...]) -> torch.Tensor:
        return u_BL  # decides how many positions a Bernoulli step reveals; which ones, the logits decide


def gumbel_top(
    log_prob_BL: torch.Tensor, num_B: torch.Tensor, temperature: float, uniforms_BL: torch.Tensor
) -> torch.Tensor:
    """The `num` positions of each row with the highest `log_prob + temperature * Gumbel`, `(B, L)` bool. Ties:
    leftmost.
    """
    score_BL = log_prob_BL + temperature * gumbel(uniforms_BL)
    place_BL = score_BL.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
    return place_BL < num_B[:, None]
