import math

import torch

from ..draws import Generators, draw_uniforms
from .base import Corruption


class Absorbing(Corruption):
    """Every token goes to the mask at rate 1, and stays there (SEDD, RADD, MDLM, MaskGIT, LLaDA).

    `LSDScheduler` does not use the laws below. It reveals each position once and reads no other row, which is the same
    process; the laws define that process.

    Args:
        mask_token_id (`int`): the mask, one of the states.
        num_states (`int`): vocabulary and mask.
    """

    name = "absorbing"
    absorbing = True

    def __init__(self, mask_token_id: int, num_states: int):
        self.mask_token_id, self.num_states = mask_token_id, num_states

    def prior(self) -> torch.Tensor:
        return torch.eye(self.num_states, dtype=torch.float64)[self.mask_token_id]

    def forward_law(self, x_R: torch.Tensor, total: float) -> torch.Tensor:
        law_RV = self._one_hot(x_R) * math.exp(-total)
        law_RV[:, self.mask_token_id] -= math.expm1(-total)
        return law_RV

    def score(
        self, prediction_RV: torch.Tensor, x_R: torch.Tensor, total: float, prediction_type: str
    ) -> torch.Tensor:
        # RADD, theorem 1: a normalised prediction is the score up to a factor of time
        factor = 1 / math.expm1(total) if prediction_type == "logits" else 1.0
        is_masked_R1 = (x_R == self.mask_token_id)[:, None]
        score_RV = (prediction_RV * factor * is_masked_R1).masked_fill(self._one_hot(x_R).bool(), 1.0)
        return score_RV

    def reverse_rates(self, score_RV: torch.Tensor, x_R: torch.Tensor) -> torch.Tensor:
        is_masked_R1 = (x_R == self.mask_token_id)[:, None]
        return (score_RV * is_masked_R1).masked_fill(self._one_hot(x_R).bool(), 0.0)

    def posterior(
        self, prediction_RV: torch.Tensor, x_R: torch.Tensor, total: float, total_next: float, prediction_type: str
    ) -> torch.Tensor:
        score_RV = self.score(prediction_RV, x_R, total, prediction_type)
        moves_RV = math.expm1(total - total_next) * self.reverse_rates(score_RV, x_R)
        return moves_RV + self._one_hot(x_R) * (1 - moves_RV.sum(-1, keepdim=True))

    def corrupt(self, x_BL: torch.Tensor, total_B: torch.Tensor, generator: Generators) -> torch.Tensor:
        uniforms_BL = draw_uniforms(x_BL.shape[0], x_BL.shape[1], generator, x_BL.device)
        masked_BL = uniforms_BL < -torch.expm1(-total_B)[:, None]
        return x_BL.masked_fill(masked_BL, self.mask_token_id)

    def _one_hot(self, x_R: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(x_R, self.num_states).double()
