from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch

from .. import certainty
from ..canvas import StepInput
from ..plan import StepPlan
from ..spacing import spaced
from .options import Option
from .own_step import OwnStep


class FastDLLM(OwnStep):
    """All tokens that are confident enough, at least one (Fast-dLLM, https://huggingface.co/papers/2505.22618). One
    call a step.

    The confidence is the probability of the token that was drawn, before any temperature or `top_p` of the draw, as in
    the authors' code for LLaDA (that for Dream reads it after them: `certainty="tempered"`). It adapts to each
    sequence and is done when nothing is masked, perhaps before the last step; that one reveals what is left. In
    LLaDA2Pipeline the rule holds within each block. Made for language models that answer: above temperature 0 likely
    tokens are favoured, as in the order `confidence`.
    """

    takes_gap = True

    @abstractmethod
    def accepts(self, confidence_BL: torch.Tensor, rank_BL: torch.Tensor, options: Mapping[str, Any]) -> torch.Tensor:
        """Which candidates are confident enough, `(B, L)`.

        Args:
            confidence_BL (`torch.DoubleTensor` of shape `(batch_size, seq_len)`): 0 where nothing is masked.
            rank_BL (`torch.LongTensor` of that shape): 0 for the most confident.
            options: the solver's.
        """

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        (v_BL,) = x.uniforms(1)
        candidate_BL, log_prob_BL, confidence_BL = x.draw_rated(x.masked_BL, v_BL)
        chosen_BL = x.masked_BL
        if not x.is_last:
            rank_BL = certainty.ranks(confidence_BL)
            chosen_BL = chosen_BL & ((rank_BL == 0) | self.accepts(confidence_BL.exp(), rank_BL, plan.options))
            chosen_BL = spaced(rank_BL, chosen_BL, x, plan.minimal_gap)
        next_BL = torch.where(chosen_BL, candidate_BL, x.sample_BL)
        return next_BL, log_prob_BL.exp().float().masked_fill(~chosen_BL, 0)


class FastDLLMThreshold(FastDLLM):
    """Fast-dLLM's threshold: tokens of a confidence of at least `threshold`. One call a step.

    The `threshold` that LLaDA2Pipeline passes to every step is not this one.
    """

    name = "fast_dllm_threshold"
    options = {"threshold": Option(0.9, 0, 1)}

    def accepts(self, confidence_BL: torch.Tensor, rank_BL: torch.Tensor, options: Mapping[str, Any]) -> torch.Tensor:
        return confidence_BL >= options["threshold"]


class FastDLLMFactor(FastDLLM):
    """Fast-dLLM's factor: the n most confident tokens if the n-th one's confidence is at least `1 - factor / (n + 1)`.
    One call a step.

    It asks for more confidence the more tokens are revealed at once: their joint law is then close to the product. As
    in the authors' code, if only the last masked position fails, it is revealed too: two masked positions both are.
    """

    name = "fast_dllm_factor"
    options = {"factor": Option(1.0, 0)}

    def accepts(self, confidence_BL: torch.Tensor, rank_BL: torch.Tensor, options: Mapping[str, Any]) -> torch.Tensor:
        enough_BL = (rank_BL == 0) | (confidence_BL >= 1 - options["factor"] / (rank_BL + 2))
        masked_BL = confidence_BL > 0
        fails_BL = masked_BL & ~enough_BL
        return enough_BL | (fails_BL & (fails_BL.sum(1, keepdim=True) == 1))
