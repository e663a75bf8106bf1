import torch

from .. import certainty
from ..canvas import StepInput
from ..plan import StepPlan
from .options import Option
from .own_step import OwnStep


_FIRST = 30  # what the authors' code takes for the number accepted before the first call


class WINO(OwnStep):
    """Wide in, narrow out (WINO, https://huggingface.co/papers/2507.18578): many tokens are revealed at once, and
    those that the rest of the canvas contradicts are masked again. One call a step, with a second row for each
    position.

    It reveals tokens of a confidence above `threshold`, at least one, and at most 70 % of the masked ones (5 to 20).
    If it reveals more than one, tokens of earlier calls whose probability *without themselves* is below
    `threshold_back` are masked again, fewer than the step before revealed. That probability comes from shadow rows
    (`shadow_output` of a step): masks at the same positions that see all tokens but their own. The network computes
    them in the same call, which is as much dearer as there are more tokens; see `takes_shadow` of a denoiser.

    It adapts to each sequence and is done when nothing is masked; the last call reveals what is left, and masks
    nothing.
    """

    name = "wino"
    reads_shadow = True
    options = {"threshold": Option(0.6, 0, 1), "threshold_back": Option(0.9, 0, 1)}

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        """State: how many tokens of each sequence the step before revealed, `(B,)`."""
        (v_BL,) = x.uniforms(1)
        candidate_BL, log_prob_BL, confidence_BL = x.draw_rated(x.masked_BL, v_BL)
        if x.is_last:
            return candidate_BL, log_prob_BL.exp().float()
        accepted_BL = self._accepted(x, confidence_BL, plan.options["threshold"])
        num_B = accepted_BL.sum(1)
        before_B = torch.full_like(num_B, _FIRST) if x.canvas.state is None else x.canvas.state
        again_BL = self._contradicted(x, before_B, plan.options["threshold_back"]) & (num_B > 1)[:, None]
        x.canvas.state = torch.where(num_B > 0, num_B, before_B)
        next_BL = torch.where(accepted_BL, candidate_BL, x.sample_BL).masked_fill(again_BL, x.mask_token_id)
        return next_BL, log_prob_BL.exp().float().masked_fill(~accepted_BL, 0)

    def _accepted(self, x: StepInput, confidence_BL: torch.Tensor, threshold: float) -> torch.Tensor:
        """The masked positions to be revealed, `(B, L)`; `confidence_BL` are log-probabilities."""
        enough_BL = x.masked_BL & (confidence_BL.exp() > threshold)
        # the product is taken in single precision, as there
        most_B = (x.masked_BL.sum(1).float() * 0.7).long().clamp(5, 20)
        num_B = torch.minimum(enough_BL.sum(1), most_B).clamp(min=1)
        return x.masked_BL & (certainty.ranks(confidence_BL) < num_B[:, None])

    def _contradicted(self, x: StepInput, before_B: torch.Tensor, threshold: float) -> torch.Tensor:
        """The known positions to be masked again, `(B, L)`."""
        known_BL = x.canvas.masked_BL & ~x.masked_BL
        row_R, position_R = known_BL.nonzero(as_tuple=True)
        token_R, logits_BLV = x.sample_BL[row_R, position_R], x.shadow_logits()
        support_R = certainty.of_tokens(logits_BLV, row_R, position_R, token_R, x.mask_token_id).exp()
        support_BL = x.spread(row_R, position_R, support_R, torch.inf)
        doubt_BL = support_BL < threshold
        num_B = torch.minimum(doubt_BL.sum(1), before_B - 1)
        return doubt_BL & (certainty.ranks(-support_BL) < num_B[:, None])
