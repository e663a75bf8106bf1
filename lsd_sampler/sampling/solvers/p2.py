"""Path planning (P2): every call says anew which positions are known.

Shape suffixes: B batch, L positions, V vocabulary, R free positions of the batch.
"""

import torch

from .. import certainty
from ..canvas import StepInput
from ..draws import gumbel
from ..plan import StepPlan
from .options import Option
from .own_step import OwnStep


class P2(OwnStep):
    """Path planning (P2, https://huggingface.co/papers/2502.03540), without a planner of its own. Exactly M calls, one
    a step.

    Each call draws a token at every position that was masked at the start, and scores it: by its log-probability
    together with the Gumbel noise of the draw (`score="confidence"`), or at random (`"random"`). The score of known
    positions is multiplied by `eta`; scores are negative, so that an `eta` above 1 masks more of them again, and 0
    none. After call k of M, the lowest `n (M - k) // M` of n scores are masked. Others that were masked take the drawn
    token, and known tokens stay as they are.

    A known position is scored by the fresh draw, not by its own token. Networks that copy known tokens (as MDLM's
    parametrisation does) give it a score of 0, and nothing is masked again. The leftmost of equal scores are masked
    (the authors then mask fewer). At a temperature it draws noise for every token of the vocabulary.
    """

    name = "p2"
    options = {"eta": Option(1.0, 0), "score": Option("confidence", choices=("confidence", "random"))}
    skips_complete = False  # it reads the logits of known positions too

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        (chance_BL,) = x.uniforms(1)
        mine_BL = x.canvas.masked_BL
        row_R, position_R = (mine_BL | x.masked_BL).nonzero(as_tuple=True)
        token_R, score_R, probability_R = self._drawn(x, row_R, position_R)
        candidate_BL = x.sample_BL.index_put((row_R, position_R), token_R)
        probability_BL = x.spread(row_R, position_R, probability_R, 0.0).float()
        if x.is_last:
            return torch.where(x.masked_BL, candidate_BL, x.sample_BL), probability_BL.masked_fill(~x.masked_BL, 0)
        score_BL = x.spread(row_R, position_R, score_R, torch.inf)
        if plan.options["score"] == "random":
            score_BL = chance_BL.log().masked_fill(~mine_BL, torch.inf)
        score_BL = torch.where(mine_BL & ~x.masked_BL, plan.options["eta"] * score_BL, score_BL)
        num_calls, call = len(plan.places) - x.canvas.start, x.k - x.canvas.start + 1
        num_B = mine_BL.sum(1) * (num_calls - call) // num_calls
        again_BL = mine_BL & (certainty.ranks(-score_BL.masked_fill(~mine_BL, torch.inf)) < num_B[:, None])
        taken_BL = x.masked_BL & ~again_BL
        next_BL = torch.where(taken_BL, candidate_BL, x.sample_BL).masked_fill(again_BL, x.mask_token_id)
        return next_BL, probability_BL.masked_fill(~taken_BL, 0)

    def _drawn(
        self, x: StepInput, row_R: torch.Tensor, position_R: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A token for each of these positions, its score, and its probability. `(R,)` each."""
        greedy = x.draws.temperature == 0
        logits_BLV = x.logits_BLV if greedy else x.draws.shaped(x.logits_BLV, 1.0, x.mask_token_id)
        p_RV = certainty.laws(logits_BLV, row_R, position_R, x.mask_token_id)
        noised_RV = p_RV.log()
        if not greedy:
            uniform_BLV = torch.stack(x.uniforms(p_RV.shape[1]), dim=-1)
            noised_RV = (noised_RV + gumbel(uniform_BLV[row_R, position_R])).log_softmax(-1)
        score_R, token_R = noised_RV.max(-1)
        return token_R, score_R, p_RV.gather(1, token_R[:, None])[:, 0]
