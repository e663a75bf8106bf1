"""Draws as in released code, to compare published numbers with ours: exponential races in single precision.

A masked position goes to `argmax_v w_v / E_v` over tokens and mask, `E = eps - log(eps + (1 - eps) u)`, where `u` is a
float32 uniform, drawn anew at every step. If E were exponential, this would be a draw proportional to the weights. But
E is never below eps (and `-log u` never below 6e-8), so a token of small weight beats a mask of weight near 1 too
rarely. The effect grows with the rarity of the token and the shortness of the step. Fewer positions are revealed than
the step says, and their tokens are likelier: a hidden temperature that lowers both perplexity and entropy. (For a Zipf
law with exponent 1.1 over 50,257 tokens, of 6.46 nats, and eps 1e-6: steps of 1/8 reveal 0.88 of what they should, at
5.50 nats; steps of 1/1024 reveal 0.53 of it, at 3.30 nats.)
"""

from dataclasses import dataclass
from typing import Any

import torch

from .canvas import DrawOptions, StepInput
from .logit_rows import check_row_maximum, row_chunks
from .plan import StepPlan
from .solvers import SOLVERS
from .step_rule import StepRule


DRAWS: dict[str, float] = {"exact": 0.0, "float32_eps1e-6": 1e-6, "float32_eps1e-10": 1e-10}
"""Names of draws, and eps: 1e-6 in JYS and LSD, 1e-10 in SEDD, RADD and MDLM."""


def move_weights(output_RV: torch.Tensor, prediction_type: str, amount: float, beta: float) -> torch.Tensor:
    """Weights of the tokens that masked positions may become, float32 of shape `(R, V)`; the mask's is 1 minus their
    sum, below 0 where a step is too large.

    Args:
        output_RV (`torch.Tensor` of shape `(R, V)`): the network's output.
        prediction_type (`str`): what it is.
        amount (`float`): the solver's factor in front of the score; for `"logits"`, the probability of being revealed.
        beta (`float`): multiplies the log-score.
    """
    scaled_RV = beta * output_RV.float()
    return amount * (scaled_RV.exp() if prediction_type == "log_score" else scaled_RV.softmax(-1))


@dataclass(frozen=True)
class ReleasedDraws(StepRule):
    """A step that draws tokens and masks together, as released code does.

    Args:
        name (`str`): one of `DRAWS`, except for `"exact"`.
    """

    name: str

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        """As `StepRule.advance`; the probability is the weight of each token.

        Raises:
            ValueError: for a temperature, `top_p` or `top_k`, which released code does not have.
        """
        if x.draws != DrawOptions():
            raise ValueError(f"`draws` {self.name!r} support no `temperature`, `top_p` or `top_k`, got {x.draws}.")
        amounts = plan.score_weights if plan.prediction_type == "log_score" else plan.reveal_probabilities
        beta = plan.log_score_coefficient(x.k)
        next_BL, weight_BL = x.sample_BL.clone(), torch.zeros(x.sample_BL.shape, device=x.sample_BL.device)
        row_R, position_R = x.masked_BL.nonzero(as_tuple=True)
        for b in range(len(next_BL)):
            generator = x.generator[b] if isinstance(x.generator, (list, tuple)) else x.generator
            position_r, done = position_R[row_R == b], 0
            for output_RV in row_chunks(x.logits_BLV, torch.full_like(position_r, b), position_r, x.mask_token_id):
                check_row_maximum(output_RV.amax(-1))
                at, done = position_r[done : done + len(output_RV)], done + len(output_RV)
                move_RV = move_weights(output_RV, plan.prediction_type, amounts[x.k], beta)
                stay_R1 = 0 * move_RV[:, :1] if x.is_last else 1 - move_RV.sum(-1, keepdim=True)
                weight_RV = torch.cat([move_RV, stay_R1], dim=1)
                drawn_R = draw_as_released(weight_RV, DRAWS[self.name], generator)
                token_R = torch.where(drawn_R == move_RV.shape[1], x.mask_token_id, drawn_R)
                next_BL[b, at] = token_R
                revealed_R = weight_RV.gather(1, drawn_R[:, None])[:, 0].masked_fill(token_R == x.mask_token_id, 0)
                weight_BL[b, at] = revealed_R
        return next_BL, weight_BL

    def check(self, config: Any) -> None:
        needs = (config.order, config.count, config.corruption) == ("random", "bernoulli", "absorbing")
        if not needs or not SOLVERS[config.solver].distillable:
            raise ValueError(
                f"`draws` {self.name!r} decide at each masked position whether it is revealed: they need `order`"
                " 'random', `count` 'bernoulli', `corruption` 'absorbing' and a `solver` that is no baseline, got"
                f" {config.order!r}, {config.count!r}, {config.corruption!r} and {config.solver!r}."
            )


def draw_as_released(weight_RV: torch.Tensor, eps: float, generator: torch.Generator | None) -> torch.Tensor:
    """`argmax_v w_v / E_v` of each row, `(R,)`."""
    source = weight_RV.device if generator is None else generator.device
    uniform_RV = torch.rand(weight_RV.shape, generator=generator, device=source).to(weight_RV.device)
    return (weight_RV / (eps - torch.log(eps + (1 - eps) * uniform_RV))).argmax(-1)
