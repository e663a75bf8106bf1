from abc import abstractmethod

import torch

from .. import certainty
from ..draws import gumbel
from ..logit_rows import ModelOutput
from .base import Order


class LogitOrder(Order):
    """Surest first, as the network sees it at each step: positions by a score plus annealed Gumbel noise.

    Tokens are drawn afresh at every step for all masked positions. A step reads the logits of every masked position.
    They are the denoiser's own; under `certainty="tempered"` those of the law that tokens are drawn from.
    """

    looks_at_logits = True

    def keys(self, u_BL: torch.Tensor, shift_B2: torch.Tensor, canvas_shape: tuple[int, ...]) -> torch.Tensor:
        return u_BL  # decides how many positions a Bernoulli step reveals; which ones, the logits decide

    @abstractmethod
    def scores(
        self,
        logits_BLV: ModelOutput,
        row_R: torch.Tensor,
        position_R: torch.Tensor,
        excluded: int | None,
        confidence_R: torch.Tensor,
    ) -> torch.Tensor:
        """How sure the network is of these rows: the higher, the earlier. `(R,)`, float64.

        Args:
            logits_BLV, row_R, position_R, excluded: as for [`~lsd_sampler.sampling.logit_rows.row_chunks`].
            confidence_R (`torch.DoubleTensor` of shape `(R,)`): log-probability of each row's token by `logits_BLV`.
        """


class ConfidenceOrder(LogitOrder):
    """Most confident first (MaskGIT, https://huggingface.co/papers/2202.04200; LLaDA): by the log-probability of the
    drawn token, before any temperature, `top_p`, `top_k` or log-score coefficient of the draws (as in LLaDA's code).

    The law of the samples is not that of the denoiser even with one token a step: unlikely tokens are drawn again.
    With `schedule="cosine"` and exact counts it is MaskGIT's sampler, its noise annealed linearly from
    `confidence_temperature` (4.5 in Halton-MaskGIT's code) to 0. Other counts are had by
    [`~lsd_sampler.sampling.schedules.grid_from_counts`].
    """

    name = "confidence"

    def scores(
        self,
        logits_BLV: ModelOutput,
        row_R: torch.Tensor,
        position_R: torch.Tensor,
        excluded: int | None,
        confidence_R: torch.Tensor,
    ) -> torch.Tensor:
        return confidence_R


class MarginOrder(LogitOrder):
    """Clearest first (https://huggingface.co/papers/2502.06768; Dream's `topk_margin`): by the probability of the most
    likely token less that of the next, before any temperature of the draws.

    Unlike `confidence` it does not depend on the token that was drawn, so no token is favoured.
    """

    name = "margin"

    def scores(
        self,
        logits_BLV: ModelOutput,
        row_R: torch.Tensor,
        position_R: torch.Tensor,
        excluded: int | None,
        confidence_R: torch.Tensor,
    ) -> torch.Tensor:
        return certainty.of_rows(certainty.margin, logits_BLV, row_R, position_R, excluded)


class EntropyOrder(LogitOrder):
    """Least uncertain first (Dream's `entropy`): by the entropy of the token, before any temperature of the draws.

    Like `margin` it does not depend on the token that was drawn; it looks at the whole law.
    """

    name = "entropy"

    def scores(
        self,
        logits_BLV: ModelOutput,
        row_R: torch.Tensor,
        position_R: torch.Tensor,
        excluded: int | None,
        confidence_R: torch.Tensor,
    ) -> torch.Tensor:
        return -certainty.of_rows(certainty.entropy, logits_BLV, row_R, position_R, excluded)


def gumbel_top(
    score_BL: torch.Tensor, num_B: torch.Tensor, temperature: float, uniforms_BL: torch.Tensor
) -> torch.Tensor:
    """The `num` positions of each row with the highest `score + temperature * Gumbel`, `(B, L)` bool. Ties go to the
    leftmost.
    """
    return certainty.ranks(score_BL + temperature * gumbel(uniforms_BL)) < num_B[:, None]
