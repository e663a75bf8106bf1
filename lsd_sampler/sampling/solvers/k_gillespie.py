import torch

from ..canvas import StepInput
from ..draws import log_mass
from ..orders import gumbel_top
from ..plan import StepPlan
from .own_step import OwnStep


class KGillespie(OwnStep):
    """Exact counts by exponential clocks (k-Gillespie, https://huggingface.co/papers/2410.07761): each masked position
    rings at the rate of its score, and the first k to ring are revealed. One call a step.

    The counts are those of the schedule, so the network is called at its times, not at those of the clocks. Under a
    normalised denoiser all clocks have the same rate. In law it is then Tweedie with `count="exact"` in random order.
    """

    name = "k_gillespie"

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        v_BL, clock_BL = x.uniforms(2)
        due_BL = x.masked_BL
        if not x.is_last:
            row_R, position_R = x.masked_BL.nonzero(as_tuple=True)
            log_rate_R = torch.zeros(len(row_R), dtype=torch.float64, device=row_R.device)
            if plan.prediction_type == "log_score":
                log_rate_R = log_mass(x.logits_BLV, row_R, position_R, excluded=x.mask_token_id)
            log_rate_BL = x.spread(row_R, position_R, log_rate_R, -torch.inf)
            due_B = plan.num_known(x) - (x.canvas.masked_BL & ~x.masked_BL).sum(1)
            # the first k to ring have the k highest log-rates after Gumbel noise
            due_BL = x.masked_BL & gumbel_top(log_rate_BL, due_B, 1.0, clock_BL)
        return x.reveal(due_BL, v_BL)
