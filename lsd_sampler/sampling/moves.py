"""One step of the reverse process where there is no mask: every token may move, to any state.

Shape suffixes: B batch, L positions, V states, R rows (positions of the batch).
"""

from dataclasses import dataclass
from typing import Any

import torch

from .canvas import DrawOptions, StepInput
from .corruptions import Corruption
from .counts import check_count
from .draws import draw_uniforms, inverse_cdf, keep_likely
from .logit_rows import check_row_maximum, row_chunks
from .noise import NoiseSchedule
from .plan import StepPlan
from .solvers import UpdateRule
from .step_rule import StepRule


@dataclass(frozen=True)
class TokenMoves(StepRule):
    """The reverse process of a corruption without a mask, as a model predicts it.

    Noise is drawn afresh at every step, because a token has no fixed time at which it is decided.

    Args:
        corruption ([`~lsd_sampler.sampling.corruptions.Corruption`]), noise
            ([`~lsd_sampler.sampling.noise.NoiseSchedule`]): the forward process.
        solver ([`~lsd_sampler.sampling.solvers.UpdateRule`]): makes a step of the reverse process.
        prediction_type (`str`): what the model's output is, `"logits"` or `"log_score"`.
    """

    has_mask = False

    corruption: Corruption
    noise: NoiseSchedule
    solver: UpdateRule
    prediction_type: str

    def predictions(self, output_RV: torch.Tensor, beta: float) -> torch.Tensor:
        """The model's output to the power of the log-score coefficient, as a prediction of `Corruption`. `(R, V)`."""
        scaled_RV = beta * output_RV.double()
        return scaled_RV.exp() if self.prediction_type == "log_score" else scaled_RV.softmax(-1)

    def total_rates(self, output_RV: torch.Tensor, x_R: torch.Tensor, t: float) -> torch.Tensor:
        """Rate, at noise rate 1, at which each token leaves its state in the reverse process at time t. `(R,)`."""
        prediction_RV, total = self.predictions(output_RV, 1.0), float(self.noise.total(t))
        score_RV = self.corruption.score(prediction_RV, x_R, total, self.prediction_type)
        return self.corruption.reverse_rates(score_RV, x_R).sum(-1)

    def law(
        self, output_RV: torch.Tensor, x_R: torch.Tensor, t: float, s: float, phi: float, beta: float
    ) -> torch.Tensor:
        """Law of each token after a step from time t to s (0: all noise is taken away), not normalised. `(R, V)`.

        The score coefficient `phi` multiplies the probabilities of moving; it does nothing in a step to 0.
        """
        prediction_RV = self.predictions(output_RV, beta)
        if s == 0:
            total = float(self.noise.total(t))
            return self.corruption.posterior(prediction_RV, x_R, total, 0.0, self.prediction_type).clamp(min=0)
        law_RV = self.solver.law(self.corruption, self.noise, prediction_RV, x_R, t, s, self.prediction_type)
        if phi != 1:
            own_R1 = law_RV.gather(1, x_R[:, None])
            moved_R1 = law_RV.sum(-1, keepdim=True) - own_R1
            law_RV = (phi * law_RV).scatter(1, x_R[:, None], own_R1 + (1 - phi) * moved_R1)
        return law_RV.clamp(min=0)

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        phi, beta = float(plan.steps.score_coefficients[x.k]), plan.log_score_coefficient(x.k)
        t, s = plan.interval(x.k)
        s = 0.0 if x.is_last else s
        B, L = x.sample_BL.shape
        v_R = draw_uniforms(B, L, x.generator, x.sample_BL.device).flatten()
        row_R, position_R = torch.ones_like(x.sample_BL, dtype=torch.bool).nonzero(as_tuple=True)
        tokens, probabilities, done = [], [], 0
        for output_RV in row_chunks(x.logits_BLV, row_R, position_R, None):
            rows = slice(done, done + len(output_RV))
            done, x_R = rows.stop, x.sample_BL.flatten()[rows]
            check_row_maximum(output_RV.amax(-1))
            law_RV = _shape(self.law(output_RV, x_R, t, s, phi, beta), None if s == 0 else x_R, x.draws)
            token_R, total_R = inverse_cdf(law_RV, v_R[rows])
            tokens.append(token_R)
            probabilities.append(law_RV.gather(1, token_R[:, None])[:, 0] / total_R)
        return torch.cat(tokens).view(B, L), torch.cat(probabilities).view(B, L).float()

    def check(self, config: Any) -> None:
        check_count(config.count, corruption=(config.corruption, False))
        if config.order != "random":
            raise ValueError(
                f"`order` {config.order!r} is for absorbing noise; under {config.corruption} noise all tokens move."
            )
        if config.corruption == "gaussian" and config.prediction_type == "log_score":
            raise ValueError(
                "`prediction_type` 'log_score' cannot be used under gaussian noise: the last step needs the"
                " probabilities of the clean token, which scores do not give there. Use 'logits'."
            )


def _shape(law_RV: torch.Tensor, stay_R: torch.Tensor | None, draws: DrawOptions) -> torch.Tensor:
    """Applies temperature, `top_p` and `top_k` to where a token moves; the probability that it stays is unchanged."""
    if draws == DrawOptions():
        return law_RV
    moves_RV = law_RV if stay_R is None else law_RV.scatter(1, stay_R[:, None], 0.0)
    if draws.temperature == 0:
        shaped_RV = torch.zeros_like(moves_RV).scatter(1, moves_RV.argmax(-1, keepdim=True), 1.0)
    else:
        shaped_RV = (moves_RV / moves_RV.amax(-1, keepdim=True).clamp(min=1e-300)) ** (1 / draws.temperature)
        keep_likely(shaped_RV, draws.top_p, draws.top_k)
    shaped_RV = shaped_RV * (moves_RV.sum(-1, keepdim=True) / shaped_RV.sum(-1, keepdim=True).clamp(min=1e-300))
    return shaped_RV if stay_R is None else shaped_RV.scatter(1, stay_R[:, None], law_RV.gather(1, stay_R[:, None]))
