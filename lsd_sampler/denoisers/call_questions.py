"""What a pipeline can be asked about a call before it is made."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .canvas_input import CanvasInput, TokenIds
from .prompts import PaddedPrompts, PromptOptions, read_prompts


class CallQuestions:
    """The questions of [`~lsd_sampler.MaskedDiffusionPipeline`]; trainers and commands ask them too."""

    denoiser: Any
    tokenizer: Any

    def canvas_of(self, input_ids: TokenIds | Sequence[Sequence[int]]) -> torch.Tensor:
        """Canvases in which masks are to be filled in, of shape `(batch_size, length)`.

        Raises:
            ValueError: if this pipeline cannot fill them in.
        """
        return self._input.canvas_of(input_ids)

    def number_of_blocks(self, call_kwargs: Mapping[str, Any]) -> int:
        """How many blocks a call with these arguments has, which share its `num_inference_steps`."""
        if call_kwargs.get("block_length") is None:
            return 1
        return len(self._padded(call_kwargs).blocks(call_kwargs["block_length"]))

    def new_tokens(self, call_kwargs: Mapping[str, Any]) -> int:
        """How many tokens a call with these arguments, a prompt among them, makes for each answer."""
        return self._padded(call_kwargs).max_new_tokens

    def prompt_canvases(self, call_kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
        """The prompts of a call with these arguments, each followed by masks, `(length,)`, without padding."""
        padded = self._padded(call_kwargs)
        return [row[int(cut) :] for row, cut in zip(padded.canvas_BL, padded.padding_B, strict=True)]

    def cache_bytes(self, call_kwargs: Mapping[str, Any], batch_size: int) -> int:
        """Bytes of the keys and values that a call with these arguments keeps, for so many answers at a time. The
        longest prompt counts.
        """
        if call_kwargs.get("cache", "none") == "none":
            return 0
        canvas_BL, frame = self._padded(call_kwargs).canvas_BL, getattr(self.denoiser, "frame_token_ids", ((), ()))
        positions = canvas_BL.shape[1] + sum(map(len, frame))
        rows = batch_size * (2 if call_kwargs.get("guidance_scale") else 1)
        return rows * positions * getattr(self.denoiser, "key_value_bytes", 0)

    def _padded(self, call_kwargs: Mapping[str, Any]) -> PaddedPrompts:
        options = PromptOptions(call_kwargs.get("max_new_tokens"), call_kwargs.get("block_length"))
        given = (call_kwargs.get(name) for name in ("prompt", "messages", "attention_mask"))
        return options.padded(read_prompts(self._input, *given), self.denoiser, 0)

    @property
    def _input(self) -> CanvasInput:
        return CanvasInput(self.denoiser, self.tokenizer)
