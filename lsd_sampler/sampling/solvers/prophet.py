import torch

from .. import certainty
from ..canvas import StepInput
from ..counts import llada_known
from ..plan import StepPlan
from .options import Option
from .own_step import OwnStep


class Prophet(OwnStep):
    """LLaDA's counts, most confident first, and everything at once as soon as the answer seems settled (Prophet,
    https://huggingface.co/papers/2508.19982). One call a step.

    It is settled when the lead of the most likely token over the next, in nats, is at least `early` in the first third
    of the calls, `middle` in the second, `late` in the last. The lead is the mean over all masked positions, or the
    least of them (`lead="least"`). The authors take the mean over a few positions of an answer, whose place they know,
    known tokens among them. A sequence that exits is done, and takes fewer calls.
    """

    name = "prophet"
    options = {
        "early": Option(7.5, 0),
        "middle": Option(5.0, 0),
        "late": Option(2.5, 0),
        "lead": Option("mean", choices=("mean", "least")),
    }

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        (v_BL,) = x.uniforms(1)
        candidate_BL, log_prob_BL, confidence_BL = x.draw_rated(x.masked_BL, v_BL)
        call, num_calls = x.k - x.canvas.start, len(plan.places) - x.canvas.start
        mine_BL = x.canvas.masked_BL
        num_B = llada_known(mine_BL.sum(1), call, num_calls) - (mine_BL & ~x.masked_BL).sum(1)
        due_BL = certainty.ranks(confidence_BL) < num_B[:, None]
        name = "early" if call < 0.33 * num_calls else "middle" if call < 0.67 * num_calls else "late"
        settled_B = self._lead(x, plan.options["lead"]) >= plan.options[name]
        due_BL = x.masked_BL if x.is_last else x.masked_BL & (due_BL | settled_B[:, None])
        next_BL = torch.where(due_BL, candidate_BL, x.sample_BL)
        return next_BL, log_prob_BL.exp().float().masked_fill(~due_BL, 0)

    def _lead(self, x: StepInput, which: str) -> torch.Tensor:
        """How far the most likely tokens of the masked positions lead, `(B,)`."""
        row_R, position_R = x.masked_BL.nonzero(as_tuple=True)
        lead_R = certainty.of_rows(certainty.log_margin, x.rated_logits(), row_R, position_R, x.mask_token_id)
        if which == "least":
            return x.spread(row_R, position_R, lead_R, torch.inf).amin(1)
        return x.spread(row_R, position_R, lead_R, 0.0).sum(1) / x.masked_BL.sum(1).clamp(min=1)
