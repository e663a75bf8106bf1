"""One step under absorbing noise: each masked position is revealed once, in the order that was chosen.

Shape suffixes: B batch, L positions.
"""

import torch

from .canvas import StepInput
from .orders import LogitOrder, Order, gumbel_top
from .plan import StepPlan


def reveal(order: Order, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
    """The next canvas, and the probability with which each token revealed in it was drawn. Both `(B, L)`."""
    beta = float(plan.steps.log_score_coefficients[x.k])
    if isinstance(order, LogitOrder):
        return _reveal_surest(order, x, plan, beta)
    # at the last step whatever is still masked is due, even a position that a callback masked again
    due_BL = x.masked_BL if x.is_last else x.masked_BL & _due(x, plan)
    return x.reveal(due_BL, x.canvas.v_BL, beta)


def _due(x: StepInput, plan: StepPlan) -> torch.Tensor:
    """Which of the positions masked at the start are known after this step, were they to go by rank. `(B, L)`."""
    canvas = x.canvas
    if plan.count != "bernoulli":
        return canvas.masked_BL & (canvas.rank_BL < plan.num_known(x)[:, None])
    if plan.prediction_type == "log_score":
        canvas.survival_BL = canvas.survival_BL * (1 - plan.jump(x))
        return canvas.masked_BL & (canvas.u_BL < 1 - canvas.survival_BL)
    return canvas.masked_BL & (canvas.u_BL < 1 - plan.survival(x))


def _reveal_surest(order: LogitOrder, x: StepInput, plan: StepPlan, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws a candidate for every masked position and keeps the surest, as many as are due by rank."""
    v_BL, gumbel_BL, jump_BL = x.uniforms(3)
    candidate_BL, log_prob_BL, confidence_BL = x.draw_rated(x.masked_BL, v_BL, beta)
    if x.is_last:
        return candidate_BL, log_prob_BL.exp().float()
    if plan.count == "bernoulli" and plan.prediction_type == "log_score":
        # positions are not revealed by their own `u` here, so jumps are drawn afresh at those still masked
        due_B = (jump_BL < plan.jump(x)).sum(1)
    else:
        due_B = _due(x, plan).sum(1) - (x.canvas.masked_BL & ~x.masked_BL).sum(1)
    row_R, position_R = x.masked_BL.nonzero(as_tuple=True)
    confidence_R = confidence_BL[row_R, position_R]
    score_R = order.scores(x.rated_logits(beta), row_R, position_R, x.mask_token_id, confidence_R)
    score_BL = x.spread(row_R, position_R, score_R, -torch.inf)
    chosen_BL = x.masked_BL & gumbel_top(score_BL, due_B, plan.position_temperatures[x.k], gumbel_BL)
    next_BL = torch.where(chosen_BL, candidate_BL, x.sample_BL)
    return next_BL, log_prob_BL.exp().float().masked_fill(~chosen_BL, 0)
