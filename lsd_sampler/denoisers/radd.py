"""RADD: a time-free masked diffusion transformer (https://huggingface.co/papers/2406.03736).

Reads and writes the official on-disk format: the nested training `config.json` beside `model.safetensors`.
"""

from typing import Any, Self

import torch
import torch.nn.functional as F

# diffusers looks for `ModelMixin` in this module when it reloads a pipeline
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401
from torch import nn

from ..sampling.logit_rows import edit_rows
from ..sampling.noise import LogLinear
from .base import Denoiser, build_model
from .config_keys import SEDD_NOISES, read_dropout, read_noise, read_size, read_sizes
from .files import Checkpoint, read_weights
from .shadow import at_places, behind, shadow_attention
from .transformer import Embedding, LayerNorm, Rotary, attention


_GPT2_VOCAB_SIZE = 50257
_LENGTH = 1024  # of all published models


class Block(nn.Module):
    def __init__(self, dim: int, num_heads: int, dropout: float):
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.norm1 = LayerNorm(dim, bias=True)
        self.attn_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.attn_out = nn.Linear(dim, dim, bias=False)
        self.norm2 = LayerNorm(dim, bias=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(approximate="tanh"), nn.Linear(4 * dim, dim))

    def forward(
        self, x: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor], sees: torch.Tensor | None = None
    ) -> torch.Tensor:
        h = self.attn_out(attention(self.attn_qkv(self.norm1(x)), self.num_heads, rotary, sees))
        x = x + F.dropout(h, self.dropout, self.training)
        return x + F.dropout(self.mlp(self.norm2(x)), self.dropout, self.training)


class OutputLayer(nn.Module):
    """The final norm and the head, called apart."""

    def __init__(self, dim: int, num_outputs: int):
        super().__init__()
        self.norm_final = LayerNorm(dim, bias=True)
        self.linear = nn.Linear(dim, num_outputs)


class RADDDenoiser(Denoiser):
    r"""
    The transformer of RADD (https://huggingface.co/papers/2406.03736). It has no time input.

    Args:
        config (`dict`): the official training config. Used are `tokens`, `noise.{type, sigma_min, sigma_max}`
            (default: log-linear) and `model.{hidden_size, n_heads, n_blocks, length, dropout}` (default of `length`:
            1024); the rest is kept for saving.

    Raises:
        ValueError: if one of these keys is missing or unusable.
    """

    defers_head = True
    takes_shadow = True

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        sizes = read_sizes(config, {size: f"model.{size}" for size in ("hidden_size", "n_heads", "n_blocks")})
        dim, num_heads = sizes["hidden_size"], sizes["n_heads"]
        dropout = read_dropout(config, "model.dropout")
        self.config = config
        self.vocab_size = self.mask_token_id = read_size(config, "tokens")
        self.length = read_size(config, "model.length") if "length" in config["model"] else _LENGTH
        self.noise = read_noise(config, "noise", SEDD_NOISES) if config.get("noise") else LogLinear()
        self.vocab_embed = Embedding(self.vocab_size + 1, dim)
        self.rotary_emb = Rotary(dim // num_heads)
        self.blocks = nn.ModuleList(Block(dim, num_heads, dropout) for _ in range(sizes["n_blocks"]))
        self.output_layer = OutputLayer(dim, self.vocab_size + 1)

    def hidden_states(
        self, tokens: torch.Tensor, t: torch.Tensor | None = None, *, shadow: slice | None = None
    ) -> torch.Tensor:
        """Output of the last block, after the final norm."""
        rotary, sees = self.rotary_emb(tokens.shape[1]), None
        if shadow is not None:
            rotary, sees = at_places(rotary, shadow), shadow_attention(tokens.shape[1], shadow, tokens.device)
            tokens = behind(tokens, shadow, self.hole_id)
        x = self.vocab_embed(tokens)
        for block in self.blocks:
            x = block(x, rotary, sees)
        return self.output_layer.norm_final(x)

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Raw logits `(..., vocab_size + 1)`, mask column last."""
        return self.output_layer.linear(hidden)

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """Raw logits of shape `(batch_size, seq_len, vocab_size + 1)`, mask column last."""
        return self.head(self.hidden_states(tokens))

    def forward(
        self,
        tokens: torch.Tensor,
        t: torch.Tensor | None = None,
        *,
        return_hidden_states: bool = False,
        shadow: slice | None = None,
    ) -> torch.Tensor:
        """The official output: log-probabilities of the clean token, and in the last column the mask's raw logit.

        Args:
            tokens (`torch.LongTensor` of shape `(batch_size, seq_len)`): masked where equal to `mask_token_id`.
            t (*optional*): ignored.
            return_hidden_states (`bool`, defaults to `False`): whether to stop before the head.
            shadow (`slice`, *optional*): positions that are predicted once more, each from all tokens but its own.
                Their rows follow those of the canvas.

        Returns:
            `torch.Tensor` of shape `(batch_size, seq_len, vocab_size + 1)`. The first `vocab_size` columns sum to one.
        """
        hidden = self.hidden_states(tokens, shadow=shadow)
        if return_hidden_states:
            return hidden
        return edit_rows(_normalise_tokens, self.head(hidden))

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        model = checkpoint.config.get("model")
        if "tokens" not in checkpoint.config or not isinstance(model, dict) or "n_blocks" not in model:
            return False
        # SEDD's config, from which this one descends, has a graph
        return model.get("type") == "ddit_wot" or "graph" not in checkpoint.config

    @classmethod
    def _from_checkpoint(cls, checkpoint: Checkpoint, variant: str | None = None) -> Self:
        tensors, where = read_weights(checkpoint, variant)
        return build_model(lambda: cls(checkpoint.config), checkpoint.config_file, tensors, where)

    def _config(self) -> dict[str, Any]:
        return self.config

    def _hub_tokenizer(self) -> str | None:
        return "gpt2" if self.vocab_size == _GPT2_VOCAB_SIZE else None


def _normalise_tokens(logits: torch.Tensor) -> None:
    """Log-probabilities in place of the logits of tokens; the mask column, last, stays."""
    tokens = logits[..., :-1]
    tokens.copy_(tokens.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32)))
