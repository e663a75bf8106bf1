from dataclasses import replace

import torch

from .. import certainty
from ..canvas import StepInput
from ..logit_rows import DeferredLogits
from ..plan import StepPlan
from .options import Option
from .own_step import OwnStep
from .remembered import Rows


_NEAR = 1e-5  # confidences this near to the largest go with it, as in the authors' code


class CreditDecoding(OwnStep):
    """Fast-dLLM's threshold, with credit for tokens that were the most likely ones before (CreditDecoding,
    https://huggingface.co/papers/2510.06133). One call a step.

    At each masked position the most likely token earns its probability to the power `gamma`, and all credit of earlier
    calls shrinks by `beta`. Tokens are drawn, and their confidences read, from the logits plus `alpha` times the log
    of 1 plus the credit: that multiplies the odds of a token by up to 1.6 in the first call, and 3.5 later. Tokens of
    a confidence of at least `threshold` are revealed, or the surest.

    It adapts to each sequence and is done when nothing is masked; the last call reveals what is left. It keeps a
    number for each token of each masked position. It favours tokens, so it does not sample the denoiser's law at any
    number of calls.
    """

    name = "credit_decoding"
    options = {
        "threshold": Option(0.9, 0, 1),
        "alpha": Option(0.7, 0),
        "beta": Option(0.8, 0, 1),
        "gamma": Option(0.2, 0),
    }

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        """State: the credit of each token, by masked position."""
        (v_BL,) = x.uniforms(1)
        fused = replace(x, logits_BLV=self._fused(x, plan))
        candidate_BL, log_prob_BL, confidence_BL = fused.draw_rated(x.masked_BL, v_BL)
        confidence_BL = confidence_BL.exp()
        enough_B = (confidence_BL.amax(1) - _NEAR).clamp(max=plan.options["threshold"])
        due_BL = x.masked_BL if x.is_last else x.masked_BL & (confidence_BL >= enough_B[:, None])
        next_BL = torch.where(due_BL, candidate_BL, x.sample_BL)
        return next_BL, log_prob_BL.exp().float().masked_fill(~due_BL, 0)

    def _fused(self, x: StepInput, plan: StepPlan) -> DeferredLogits:
        """Logits with the bonus of the credit, which this call's predictions earn too."""
        row_R, position_R = x.masked_BL.nonzero(as_tuple=True)
        p_RV = certainty.laws(x.logits_BLV, row_R, position_R, x.mask_token_id)
        credit_RV, options = torch.zeros_like(p_RV), plan.options
        if x.canvas.state is not None:
            credit_RV = options["beta"] * x.canvas.state.at(row_R, position_R)
        best_R1, token_R1 = p_RV.max(-1, keepdim=True)
        credit_RV = credit_RV.scatter_add(1, token_R1, best_R1 ** options["gamma"])
        x.canvas.state = Rows.of(credit_RV, x.masked_BL)
        return Rows.of(p_RV.log() + options["alpha"] * credit_RV.log1p(), x.masked_BL).as_logits()
