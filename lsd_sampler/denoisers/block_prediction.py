"""Calls of a denoiser for one block after another, with the rest of the canvas around it.

Shape suffixes: B batch, L positions, S positions of a block, D hidden width, R chosen sequences.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch

from ..sampling.logit_rows import DeferredLogits, ModelOutput
from ..support.validation import check_choice
from .base import Denoiser
from .key_values import KeyValueCache
from .prediction import BasePredictor
from .prompts import PaddedPrompts


logger = logging.getLogger(__name__)

CACHES = ("none", "prefix", "dual")
"""What is kept of a block's first call: nothing; keys and values of what precedes the block; of all but the block."""


class BlockPredictor(BasePredictor):
    """Predicts the tokens of a block. The network sees the whole canvas: prompt, earlier blocks, masks of later ones.

    - A sequence is called again only if its tokens changed, where the denoiser does not see the time.
    - A denoiser that can stop before its head does so, and the head runs for the rows that the step reads.
    - Padding is hidden from the network where it takes a mask for that. Otherwise sequences with equally much padding
      are called apart from the others, without it.
    - With guidance, logits are `u + (1 + scale) (c - u)`, with `u` those of the same canvas whose prompt is masked
      (LLaDA, https://huggingface.co/papers/2502.09992). Both are computed in one call of twice as many sequences.
    - With a cache, only the first call for a block computes all positions (Fast-dLLM,
      https://huggingface.co/papers/2505.22618).

    Args:
        denoiser, scheduler, excluded, device: as for [`~lsd_sampler.denoisers.prediction.BasePredictor`].
        prompts ([`~lsd_sampler.denoisers.prompts.PaddedPrompts`]): how the canvases begin.
        guidance_scale (`float`): 0 for none.
        cache (`str`): one of `CACHES`.

    Raises:
        ValueError: for an unknown cache, guidance of a denoiser that is not normalised, or a solver that reads shadow
            rows where there are none.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        scheduler: Any,
        prompts: PaddedPrompts,
        *,
        guidance_scale: float = 0.0,
        cache: str = "none",
        excluded: Sequence[int] = (),
        device: torch.device | None = None,
    ):
        check_choice("cache", cache, CACHES)
        if guidance_scale and denoiser.prediction_type != "logits":
            raise ValueError(f"`guidance_scale` needs logits, and {type(denoiser).__name__} predicts scores.")
        if cache != "none" and not getattr(denoiser, "keeps_keys_and_values", False):
            logger.warning("%s keeps no keys and values, so `cache` %r has no effect.", type(denoiser).__name__, cache)
            cache = "none"
        super().__init__(denoiser, scheduler, excluded, device)
        if self.reads_shadow and cache != "none":
            raise ValueError(
                f"`cache` {cache!r} keeps rows that `solver` {scheduler.config.solver!r} needs anew: leave it out."
            )
        self.guidance_scale, self.cache, self.start = guidance_scale, cache, prompts.start
        self.calls_B = torch.zeros(len(prompts.canvas_BL), dtype=torch.long)
        """Network calls for each sequence."""
        hides_padding = getattr(denoiser, "takes_padding", False) and not self.reads_shadow
        self._text_BL = prompts.text_mask().to(self.device) if hides_padding and prompts.padding_B.any() else None
        self._cut_B = torch.zeros_like(prompts.padding_B) if hides_padding else prompts.padding_B

    @property
    def first_token_alone(self) -> bool:
        """Whether only the first call for a block can predict its first token: with a cache, if rows are shifted."""
        return self.cache != "none" and bool(getattr(self.denoiser, "shifted", False))

    def begin(self, block: slice) -> None:
        """Goes on to a block: its first call computes everything anew."""
        self._block = block
        self._output_BSD: torch.Tensor | None = None
        self._caches: dict[int, tuple[KeyValueCache, torch.Tensor]] = {}

    def __call__(self, sample_BL: torch.Tensor, t: torch.Tensor, wanted_B: torch.Tensor) -> ModelOutput:
        """The prediction for the block at time t (0-d), `(B, S, V)`; only that of wanted sequences means something."""
        if self._output_BSD is not None and self.reuse:
            wanted_B = wanted_B & (sample_BL != self._tokens_BL).any(1)
        row_R = wanted_B.nonzero()[:, 0]
        if len(row_R):
            output_RSD = self._call(sample_BL[row_R], t.expand(len(row_R)), row_R.cpu())
            if self._output_BSD is None:
                self._output_BSD = output_RSD.new_zeros(len(sample_BL), *output_RSD.shape[1:])
                self._tokens_BL = sample_BL
            self._output_BSD = self._output_BSD.index_copy(0, row_R, output_RSD)
            self._tokens_BL = self._tokens_BL.index_copy(0, row_R, sample_BL[row_R])
        assert self._output_BSD is not None  # at first all are wanted that are not done
        output = self._logits(self._output_BSD, t.expand(len(sample_BL))) if self.defer_head else self._output_BSD
        return self._split(output)

    def _logits(self, hidden_BSD: torch.Tensor, t_B: torch.Tensor) -> DeferredLogits:
        if not self.guidance_scale:
            return self.denoiser.deferred_logits(hidden_BSD, t_B).edited(self._exclude)
        given, blind = (self.denoiser.deferred_logits(x, t_B) for x in hidden_BSD.chunk(2, dim=-1))

        def head(hidden: torch.Tensor) -> torch.Tensor:
            first, second = hidden.chunk(2, dim=-1)
            return self._exclude(self._guided(given.head(first), blind.head(second)))

        return DeferredLogits(hidden_BSD, head, given.shape[-1])

    def _call(self, tokens_RL: torch.Tensor, t_R: torch.Tensor, row_R: torch.Tensor) -> torch.Tensor:
        self.calls_B[row_R] += 1
        cut_R = self._cut_B[row_R]
        if bool((cut_R == cut_R[0]).all()):
            return self._call_part(tokens_RL, t_R, row_R, int(cut_R[0]))
        parts = [(cut_R == cut).nonzero()[:, 0] for cut in cut_R.unique()]
        outputs = [self._call_part(tokens_RL[part], t_R[part], row_R[part], int(cut_R[part[0]])) for part in parts]
        order_R = torch.cat(parts).argsort()
        return torch.cat(outputs)[order_R.to(tokens_RL.device)]

    def _call_part(self, tokens_RL: torch.Tensor, t_R: torch.Tensor, row_R: torch.Tensor, cut: int) -> torch.Tensor:
        """One network call, for sequences of which `cut` tokens on the left are left out."""
        self.passes += 1
        tokens_RL = tokens_RL[:, cut:]
        kwargs: dict[str, Any] = {}
        block = slice(self._block.start - cut, self._block.stop - cut)
        if self._text_BL is not None:
            kwargs["attention_mask"] = self._text_BL[row_R.to(self.device)]
        if self.guidance_scale:
            blind_RL = tokens_RL.clone()
            blind_RL[:, : self.start - cut] = self.denoiser.hole_id
            tokens_RL, t_R = torch.cat([tokens_RL, blind_RL]), torch.cat([t_R, t_R])
            kwargs = {name: torch.cat([x, x]) for name, x in kwargs.items()}
        first = block.start
        if self.cache != "none":
            cache = self._cache(row_R, cut, block, tokens_RL.shape[1])
            kwargs["cache"] = cache
            first = 0 if cache.window is not None else first
        if self.defer_head:
            kwargs["return_hidden_states"] = True
        if self.reads_shadow:
            kwargs["shadow"] = block
        whole, size = self.denoiser(tokens_RL, t_R, **kwargs), block.stop - block.start
        output = whole[:, first : first + size]
        if self.reads_shadow:
            output = torch.cat([output, whole[:, -size:]], dim=1)
        if self.guidance_scale:
            pair = output.chunk(2)
            output = torch.cat(pair, dim=-1) if self.defer_head else self._guided(*pair)
        return output if self.defer_head else self._exclude(output)

    def _cache(self, row_R: torch.Tensor, cut: int, block: slice, length: int) -> KeyValueCache:
        """The cache of these sequences, with what this call has to compute."""
        cache, kept_R = self._caches.get(cut, (None, row_R))
        if cache is None or not bool(torch.isin(row_R, kept_R).all()):
            cache = KeyValueCache()
            self._caches[cut] = cache, row_R
            return cache
        cache.window = (block.start, length if self.cache == "prefix" else block.stop)
        place_R = None if len(row_R) == len(kept_R) else torch.searchsorted(kept_R, row_R)
        if place_R is not None and self.guidance_scale:
            place_R = torch.cat([place_R, place_R + len(kept_R)])
        cache.rows = None if place_R is None else place_R.to(self.device)
        return cache

    def _guided(self, given: torch.Tensor, blind: torch.Tensor) -> torch.Tensor:
        mixed = blind + (1 + self.guidance_scale) * (given - blind)
        return torch.where(given == -torch.inf, given, mixed)  # where both are, the difference is NaN
