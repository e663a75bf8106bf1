"""LLaDA (https://huggingface.co/papers/2502.09992) and Dream (https://huggingface.co/papers/2508.15487): their
checkpoints bring code of their own, but the networks are those of Llama and Qwen2 with bidirectional attention.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from .files import Checkpoint
from .layouts import Layout


_LLADA_SIZES = {
    "embedding_size": "vocab_size", "d_model": "hidden_size", "mlp_hidden_size": "intermediate_size",
    "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads", "n_kv_heads": "num_key_value_heads",
    "max_sequence_length": "max_position_embeddings", "rope_theta": "rope_theta", "rms_norm_eps": "rms_norm_eps",
}  # fmt: skip
# keys that may be missing or null, and the keys whose value they take then
_LLADA_SAME = {"embedding_size": "vocab_size", "n_kv_heads": "n_heads"}
# settings with which OLMo's configurable block is Llama's
_LLADA_BLOCK: dict[str, Any] = {
    "block_type": "llama", "activation_type": "silu", "layer_norm_type": "rms", "rope": True, "alibi": False,
    "include_bias": False, "include_qkv_bias": False, "attention_layer_norm": False, "scale_logits": False,
    "input_emb_norm": False, "block_group_size": 1, "clip_qkv": None,
}  # fmt: skip
_LLADA_PARTS = {
    "q_proj": "self_attn.q_proj", "k_proj": "self_attn.k_proj", "v_proj": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj", "ff_proj": "mlp.gate_proj", "up_proj": "mlp.up_proj", "ff_out": "mlp.down_proj",
    "attn_norm": "input_layernorm", "ff_norm": "post_attention_layernorm",
}  # fmt: skip

_DREAM_SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings", "rope_theta", "rms_norm_eps",
)  # fmt: skip
_DREAM_OTHERS = ("hidden_act", "rope_scaling", "bos_token_id", "eos_token_id", "pad_token_id", "mask_token_id")
_DREAM_LENGTH = 2048


class LLaDALayout(Layout):
    """LLaDA's own names over Llama's network. Each row predicts its own token, and nothing surrounds the canvas.

    The official code rotates queries and keys in float32, Llama's in the precision of the weights.
    """

    def __init__(self, checkpoint: Checkpoint, tensors: Mapping[str, torch.Tensor]):
        super().__init__(checkpoint, tensors)
        outer = {"wte": "model.embed_tokens", "ln_f": "model.norm", "ff_out": "lm_head"}
        parts = {f"model.transformer.{part}.weight": f"{other}.weight" for part, other in outer.items()}
        for i in range(self.config.num_hidden_layers):
            for part, other in _LLADA_PARTS.items():
                parts[f"model.transformer.blocks.{i}.{part}.weight"] = f"model.layers.{i}.{other}.weight"
        self._names, self._file_names = parts, {other: part for part, other in parts.items()}

    @classmethod
    def recognises(cls, config: Mapping[str, Any], tensors: Collection[str]) -> bool:
        return config.get("model_type") == "llada"

    def network_config(self) -> LlamaConfig:
        config = dict(self.checkpoint.config)
        for key, other in _LLADA_SAME.items():
            config[key] = config.get(other) if config.get(key) is None else config[key]
        for key, value in _LLADA_BLOCK.items():
            if config.get(key, value) != value:
                raise ValueError(f"`{key}` must be {value!r} in a LLaDA checkpoint, got {config[key]!r}.")
        _check_complete(config, _LLADA_SIZES)
        sizes = {name: config[key] for key, name in _LLADA_SIZES.items()}
        ids: dict[str, Any] = {name: config.get(name) for name in ("mask_token_id", "eos_token_id", "pad_token_id")}
        tied = bool(config.get("weight_tying", False))
        return LlamaConfig(**sizes, **ids, bos_token_id=None, tie_word_embeddings=tied)

    def find_class(self) -> tuple[Any, str]:
        return LlamaForCausalLM, "AutoModelForCausalLM"

    def rename(self, name: str) -> str:
        return self._names.get(name, name)

    def file_name(self, name: str) -> str:
        return self._file_names.get(name, name)

    def shifted(self) -> bool:
        return False

    def reuses(self, mask_token_id: int) -> bool:
        return False


class DreamLayout(Layout):
    """Dream over Qwen2's network, with Qwen2's names. A row predicts the next token.

    Official prompts begin with a token that is given, and nothing surrounds the canvas. To generate from nothing, load
    with `frame=True`: the beginning-of-text token then precedes the canvas, so that its first row means something.
    """

    tokenizer_class = Qwen2Tokenizer  # as which the repository's own class behaves

    @classmethod
    def recognises(cls, config: Mapping[str, Any], tensors: Collection[str]) -> bool:
        return config.get("model_type") == "Dream"

    def network_config(self) -> Qwen2Config:
        config = self.checkpoint.config
        _check_complete(config, _DREAM_SIZES)
        taken = {key: config[key] for key in (*_DREAM_SIZES, *_DREAM_OTHERS) if key in config}
        return Qwen2Config(**taken, tie_word_embeddings=bool(config.get("tie_word_embeddings", False)))

    def find_class(self) -> tuple[Any, str]:
        return Qwen2ForCausalLM, "AutoModelForCausalLM"

    def shifted(self) -> bool:
        return True

    def reuses(self, mask_token_id: int) -> bool:
        return False

    def framed(self, shifted: bool) -> bool:
        return False

    def length(self) -> int:
        return min(_DREAM_LENGTH, self.config.max_position_embeddings)


def _check_complete(config: Mapping[str, Any], keys: Collection[str]) -> None:
    """The defaults of transformers' classes are not those of these models, so nothing may be left to them."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise ValueError(f"`{key}` must be a positive number, got {value!r}.")
