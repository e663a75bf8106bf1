"""Orders that look at the network's output.

Shape suffixes: B batch, L positions, R chosen rows.
"""

from abc import abstractmethod

import torch

from .. import certainty
from ..canvas import StepInput
from ..draws import gumbel
from ..logit_rows import ModelOutput
from ..plan import StepPlan
from ..spacing import spaced
from .base import Order


class LogitOrder(Order):
    """An order that looks at the logits. Each step chooses its positions by them and by its own noise, and then draws
    tokens there. Tokens and noise are drawn afresh at every step.
    """

    looks_at_logits = True

    def keys(self, u_BL: torch.Tensor, shift_B2: torch.Tensor, canvas_shape: tuple[int, ...]) -> torch.Tensor:
        return u_BL  # decides how many positions a Bernoulli step reveals; the logits decide which ones

    def reveals(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        v_BL, choice_BL, jump_BL = x.uniforms(3)
        chosen_BL = x.masked_BL if x.is_last else self.choose(x, plan, choice_BL, jump_BL)
        return chosen_BL, v_BL

    @abstractmethod
    def choose(self, x: StepInput, plan: StepPlan, choice_BL: torch.Tensor, jump_BL: torch.Tensor) -> torch.Tensor:
        """Which masked positions a step other than the last one reveals, `(B, L)`; no token is drawn yet.

        Args:
            x, plan: as for `reveals`.
            choice_BL, jump_BL (`torch.DoubleTensor` of shape `(batch_size, seq_len)`): uniforms; `jump_BL` decides how
                many are revealed if the scores do.
        """


class SurestFirst(LogitOrder):
    """The positions with the highest score after annealed Gumbel noise, as many as the schedule says.

    A step reads the logits of every masked position. They are the denoiser's own, or those of the law that tokens are
    drawn from under `certainty="tempered"`.
    """

    takes_gap = True

    def choose(self, x: StepInput, plan: StepPlan, choice_BL: torch.Tensor, jump_BL: torch.Tensor) -> torch.Tensor:
        return first_due(x, plan, self.places(x, plan, choice_BL), num_due(x, plan, jump_BL))

    def places(self, x: StepInput, plan: StepPlan, choice_BL: torch.Tensor) -> torch.Tensor:
        """The place of each masked position among those to be revealed, the surest first, from 0. `(B, L)`.

        Args:
            x, plan, choice_BL: as for `choose`.
        """
        row_R, position_R = x.masked_BL.nonzero(as_tuple=True)
        logits_BLV = x.rated_logits(plan.log_score_coefficient(x.k))
        score_R = self.scores(logits_BLV, row_R, position_R, x.mask_token_id)
        score_BL = x.spread(row_R, position_R, score_R, -torch.inf)
        return gumbel_places(score_BL, plan.position_temperatures[x.k], choice_BL)

    @abstractmethod
    def scores(
        self, logits_BLV: ModelOutput, row_R: torch.Tensor, position_R: torch.Tensor, excluded: int | None
    ) -> torch.Tensor:
        """How sure the network is of these rows: the higher, the earlier. `(R,)`, float64.

        Args:
            logits_BLV, row_R, position_R, excluded: as for [`~lsd_sampler.sampling.logit_rows.row_chunks`].
        """


class ConfidenceOrder(Order):
    """Most confident first (MaskGIT, https://huggingface.co/papers/2202.04200; LLaDA): by the log-probability of the
    drawn token, before any temperature, `top_p`, `top_k` or log-score coefficient of the draws (as in LLaDA's code).

    Each step draws a token for every masked position and keeps the surest. The law of the samples is not that of the
    denoiser even with one token a step, because unlikely tokens are drawn again.
    With `schedule="cosine"` and exact counts it is MaskGIT's sampler, with noise annealed linearly from
    `confidence_temperature` (4.5 in Halton-MaskGIT's code) to 0.
    [`~lsd_sampler.sampling.schedules.grid_from_counts`] gives other counts.
    """

    name = "confidence"
    looks_at_logits = True
    looks_at_tokens = True
    takes_gap = True

    def keys(self, u_BL: torch.Tensor, shift_B2: torch.Tensor, canvas_shape: tuple[int, ...]) -> torch.Tensor:
        return u_BL

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        beta, (v_BL, choice_BL, jump_BL) = plan.log_score_coefficient(x.k), x.uniforms(3)
        if x.is_last:
            return x.reveal(x.masked_BL, v_BL, beta)
        candidate_BL, log_prob_BL, confidence_BL = x.draw_rated(x.masked_BL, v_BL, beta)
        due_B, temperature = num_due(x, plan, jump_BL), plan.position_temperatures[x.k]
        chosen_BL = first_due(x, plan, gumbel_places(self.score(confidence_BL), temperature, choice_BL), due_B)
        next_BL = torch.where(chosen_BL, candidate_BL, x.sample_BL)
        return next_BL, log_prob_BL.exp().float().masked_fill(~chosen_BL, 0)

    def score(self, confidence_BL: torch.Tensor) -> torch.Tensor:
        """What Gumbel noise is added to, from log-probabilities of the drawn tokens, -inf where nothing is masked."""
        return confidence_BL


class ProbabilityOrder(ConfidenceOrder):
    """As `confidence`, by the probability of the drawn token rather than its logarithm (Dream's `maskgit_plus`).

    The two are the same without noise on the choice of positions. Noise of temperature T (Dream's `alg_temp`) chooses
    positions by `softmax(p / T)` here, and in proportion to `p^(1 / T)` under `confidence`.
    """

    name = "probability"

    def score(self, confidence_BL: torch.Tensor) -> torch.Tensor:
        return confidence_BL.exp().masked_fill(confidence_BL == -torch.inf, -torch.inf)


class MarginOrder(SurestFirst):
    """Clearest first (https://huggingface.co/papers/2502.06768; Dream's `topk_margin`): by the probability of the most
    likely token less that of the next, before any temperature of the draws.

    Unlike `confidence` it does not depend on the token that was drawn, so no token is favoured.
    """

    name = "margin"

    def scores(
        self, logits_BLV: ModelOutput, row_R: torch.Tensor, position_R: torch.Tensor, excluded: int | None
    ) -> torch.Tensor:
        return certainty.of_rows(certainty.margin, logits_BLV, row_R, position_R, excluded)


class EntropyOrder(SurestFirst):
    """Least uncertain first (Dream's `entropy`): by the entropy of the token, before any temperature of the draws.

    Like `margin` it does not depend on the token that was drawn; it looks at the whole law.
    """

    name = "entropy"

    def scores(
        self, logits_BLV: ModelOutput, row_R: torch.Tensor, position_R: torch.Tensor, excluded: int | None
    ) -> torch.Tensor:
        return -certainty.of_rows(certainty.entropy, logits_BLV, row_R, position_R, excluded)


def num_due(x: StepInput, plan: StepPlan, jump_BL: torch.Tensor) -> torch.Tensor:
    """How many of the masked positions of each row this step reveals, `(B,)`.

    Args:
        x, plan, jump_BL: as for [`LogitOrder.choose`].
    """
    if plan.counts_jumps:
        # a position's own `u` does not reveal it here, so jumps are drawn afresh where it is still masked
        return (jump_BL < plan.jump(x)).sum(1)
    return plan.due(x).sum(1) - (x.canvas.masked_BL & ~x.masked_BL).sum(1)


def first_due(x: StepInput, plan: StepPlan, place_BL: torch.Tensor, num_B: torch.Tensor) -> torch.Tensor:
    """The first `num` masked positions of each row, in the order of their places, that keep `plan.minimal_gap`.
    `(B, L)`, bool.
    """
    if not plan.minimal_gap:
        return x.masked_BL & (place_BL < num_B[:, None])
    taken_BL = spaced(place_BL, x.masked_BL, x, plan.minimal_gap)
    place_BL = certainty.ranks(-place_BL.double().masked_fill(~taken_BL, torch.inf))
    return taken_BL & (place_BL < num_B[:, None])


def gumbel_places(score_BL: torch.Tensor, temperature: float, uniforms_BL: torch.Tensor) -> torch.Tensor:
    """The place of each position in its row by `score + temperature * Gumbel`, the highest first, from 0; ties from
    the left. `(B, L)`.
    """
    return certainty.ranks(score_BL + temperature * gumbel(uniforms_BL))


def gumbel_top(
    score_BL: torch.Tensor, num_B: torch.Tensor, temperature: float, uniforms_BL: torch.Tensor
) -> torch.Tensor:
    """The `num` positions of each row with the highest `score + temperature * Gumbel`, `(B, L)` bool. Ties go to the
    leftmost.
    """
    return gumbel_places(score_BL, temperature, uniforms_BL) < num_B[:, None]
