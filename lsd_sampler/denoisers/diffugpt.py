"""DiffuGPT and DiffuLLaMA (https://huggingface.co/papers/2410.17891): GPT-2, in a layout of its own, and Llama 2, as
transformers saves it, retrained to fill in masks.
"""

import logging
from collections.abc import Collection, Mapping
from typing import Any

from transformers import GPT2Config

from .layouts import Layout


logger = logging.getLogger(__name__)

_TRUNK, _FILE_TRUNK = "transformer.", "denoise_model."
_EMBEDDING, _FILE_EMBEDDING = "transformer.wte.weight", "embed_tokens.weight"
# where the tokenizer has none: DiffuGPT-S reuses an ordinary token of GPT-2, DiffuGPT-M has one added
_MASKS = {50257: 10541, 50258: 50257}
# and DiffuLLaMA one of Llama 2
_LLAMA_ROWS, _LLAMA_MASK = 32000, 811


class DiffuGPTLayout(Layout):
    """GPT-2 under `denoise_model.`, its embedding outside, its head tied to that. A row predicts the next token, and
    a beginning-of-text token precedes the canvas.
    """

    @classmethod
    def recognises(cls, config: Mapping[str, Any], tensors: Collection[str]) -> bool:
        return config.get("model_type") == "gpt2" and any(name.startswith(_FILE_TRUNK) for name in tensors)

    def network_config(self) -> GPT2Config:
        config = {**self.checkpoint.config, "tie_word_embeddings": True}
        if _FILE_EMBEDDING in self.tensors:  # may have a row more than the config says
            config["vocab_size"] = len(self.tensors[_FILE_EMBEDDING])
        return GPT2Config.from_dict(config)  # pyright: ignore[reportReturnType]

    def rename(self, name: str) -> str:
        if name == _FILE_EMBEDDING:
            return _EMBEDDING
        return _TRUNK + name.removeprefix(_FILE_TRUNK) if name.startswith(_FILE_TRUNK) else name

    def file_name(self, name: str) -> str:
        if name == _EMBEDDING:
            return _FILE_EMBEDDING
        return _FILE_TRUNK + name.removeprefix(_TRUNK) if name.startswith(_TRUNK) else name

    def mask_token_id(self) -> int | None:
        known = super().mask_token_id()
        return _MASKS.get(self.rows) if known is None else known

    def reuses(self, mask_token_id: int) -> bool:
        """Whether the mask is not a row that was added after the others."""
        return mask_token_id != self.rows - 1


class DiffuLLaMALayout(Layout):
    """A plain Llama checkpoint. Where nothing names the mask, the size of the vocabulary tells it."""

    @classmethod
    def recognises(cls, config: Mapping[str, Any], tensors: Collection[str]) -> bool:
        return config.get("model_type") == "llama" and super().recognises(config, tensors)

    def mask_token_id(self) -> int | None:
        known = super().mask_token_id()
        if known is not None or self.rows != _LLAMA_ROWS:
            return known
        logger.warning(
            "Neither config nor tokenizer has a mask token: taking this Llama for DiffuLLaMA, whose mask is token %d."
            " A Llama that was not trained to fill in masks gives nonsense; for others pass `mask_token_id`.",
            _LLAMA_MASK,
        )
        return _LLAMA_MASK

    def reuses(self, mask_token_id: int) -> bool:
        return (self.rows, mask_token_id) == (_LLAMA_ROWS, _LLAMA_MASK) or super().reuses(mask_token_id)
