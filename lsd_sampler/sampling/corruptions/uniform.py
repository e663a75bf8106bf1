import math

import torch

from ..draws import Generators, draw_uniforms
from .base import Corruption


class Uniform(Corruption):
    """Every token goes to each state at rate 1 / V (SEDD's uniform graph). There is no mask.

    Args:
        num_states (`int`): V.
    """

    name = "uniform"

    def __init__(self, num_states: int):
        self.num_states = num_states

    def prior(self) -> torch.Tensor:
        return torch.full((self.num_states,), 1 / self.num_states, dtype=torch.float64)

    def forward_law(self, x_R: torch.Tensor, total: float) -> torch.Tensor:
        law_RV = torch.full((len(x_R), self.num_states), -math.expm1(-total) / self.num_states, dtype=torch.float64)
        law_RV = law_RV.to(x_R.device)
        return law_RV.scatter_add_(1, x_R[:, None], torch.full_like(law_RV[:, :1], math.exp(-total)))

    def score(
        self, prediction_RV: torch.Tensor, x_R: torch.Tensor, total: float, prediction_type: str
    ) -> torch.Tensor:
        if prediction_type == "log_score":
            return prediction_RV.scatter(1, x_R[:, None], 1.0)
        return self._mix(self._ratio(prediction_RV, x_R, total), total).scatter(1, x_R[:, None], 1.0)

    def reverse_rates(self, score_RV: torch.Tensor, x_R: torch.Tensor) -> torch.Tensor:
        return (score_RV / self.num_states).scatter(1, x_R[:, None], 0.0)

    def posterior(
        self, prediction_RV: torch.Tensor, x_R: torch.Tensor, total: float, total_next: float, prediction_type: str
    ) -> torch.Tensor:
        less = total - total_next
        if prediction_type == "logits":
            earlier_RV = self._mix(self._ratio(prediction_RV, x_R, total), total_next)
        else:  # the score's own way back: exp(-less Q) (appendix of https://huggingface.co/papers/2310.16834)
            score_RV = self.score(prediction_RV, x_R, total, prediction_type)
            earlier_RV = self._mix(score_RV, -less)
        return earlier_RV * self.forward_law(x_R, less)

    def corrupt(self, x_BL: torch.Tensor, total_B: torch.Tensor, generator: Generators) -> torch.Tensor:
        B, L = x_BL.shape
        moved_BL, state_BL = draw_uniforms(B, 2 * L, generator, x_BL.device).split(L, dim=1)
        state_BL = (state_BL * self.num_states).long().clamp(max=self.num_states - 1)
        return torch.where(moved_BL < -torch.expm1(-total_B)[:, None], state_BL, x_BL)

    def _ratio(self, p_RV: torch.Tensor, x_R: torch.Tensor, total: float) -> torch.Tensor:
        """`p(x0) / q(x | x0)`. `(R, V)`."""
        stray = -math.expm1(-total) / self.num_states  # q(x | x0) where x0 is not x
        own_R1 = p_RV.gather(1, x_R[:, None]) / (stray + math.exp(-total))
        return (p_RV / stray).scatter(1, x_R[:, None], own_R1)

    def _mix(self, weight_RV: torch.Tensor, total: float) -> torch.Tensor:
        """`sum_x0 weight(x0) exp(total Q)[x0, y]`. `(R, V)`."""
        return math.exp(-total) * weight_RV - math.expm1(-total) / self.num_states * weight_RV.sum(-1, keepdim=True)
