"""RADD: a time-free masked diffusion transformer (https://huggingface.co/papers/2406.03736).

Reads and writes the official on-disk format: the nested training `config.json` beside `model.safetensors`.
"""

from typing import Any, Self

import torch
import torch.nn.functional as F

# diffusers looks for `ModelMixin` in this module when it reloads a pipeline
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401
from torch import nn

from ..noise import NoiseSchedule, make_noise_schedule
from ..rows import rows_per_chunk
from .base import Denoiser, assign_weights
from .files import Checkpoint, read_tensors
from .transformer import Embedding, LayerNorm, Rotary, attention


_NOISE_NAMES = {"loglinear": "log_linear", "geometric": "geometric"}
_GPT2_VOCAB_SIZE = 50257


class Block(nn.Module):
    def __init__(self, dim: int, num_heads: int, dropout: float):
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.norm1 = LayerNorm(dim, bias=True)
        self.attn_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.attn_out = nn.Linear(dim, dim, bias=False)
        self.norm2 = LayerNorm(dim, bias=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(approximate="tanh"), nn.Linear(4 * dim, dim))

    def forward(self, x: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        h = self.attn_out(attention(self.attn_qkv(self.norm1(x)), self.num_heads, rotary))
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
            (default: log-linear) and `model.{hidden_size, n_heads, n_blocks, length, dropout}`; the rest is kept for
            saving.

    Raises:
        ValueError: if one of these keys is missing or unusable.
    """

    defers_head = True

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        _check_config(config)
        model = config["model"]
        dim, num_heads = model["hidden_size"], model["n_heads"]
        self.config = config
        self.vocab_size = self.mask_token_id = config["tokens"]
        self.length = model["length"]
        self.noise = _noise_schedule(config.get("noise") or {})
        self.vocab_embed = Embedding(self.vocab_size + 1, dim)
        self.rotary_emb = Rotary(dim // num_heads)
        self.blocks = nn.ModuleList(Block(dim, num_heads, model["dropout"]) for _ in range(model["n_blocks"]))
        self.output_layer = OutputLayer(dim, self.vocab_size + 1)

    def hidden_states(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
        """Output of the last block, after the final norm."""
        x = self.vocab_embed(tokens)
        rotary = self.rotary_emb(tokens.shape[1])
        for block in self.blocks:
            x = block(x, rotary)
        return self.output_layer.norm_final(x)

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Raw logits `(..., vocab_size + 1)`, mask column last."""
        return self.output_layer.linear(hidden)

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """Raw logits of shape `(batch_size, seq_len, vocab_size + 1)`, mask column last."""
        return self.head(self.hidden_states(tokens))

    def forward(
        self, tokens: torch.Tensor, t: torch.Tensor | None = None, *, return_hidden_states: bool = False
    ) -> torch.Tensor:
        """The official output: log-probabilities of the clean token, beside the mask column, last, as a raw logit.

        Args:
            tokens (`torch.LongTensor` of shape `(batch_size, seq_len)`): masked where equal to `mask_token_id`.
            t (*optional*): ignored.
            return_hidden_states (`bool`, defaults to `False`): whether to stop before the head.

        Returns:
            `torch.Tensor` of shape `(batch_size, seq_len, vocab_size + 1)`. The first `vocab_size` columns sum to one.
        """
        hidden = self.hidden_states(tokens)
        if return_hidden_states:
            return hidden
        logits = self.head(hidden)
        if logits.requires_grad:
            return torch.cat([logits[..., :-1].log_softmax(-1), logits[..., -1:]], dim=-1)
        # a slab of rows at a time: the logits of a long batch are the largest tensor of a generation
        for rows in logits.view(-1, logits.shape[-1])[:, :-1].split(rows_per_chunk(logits.shape[-1], logits.device)):
            rows.copy_(rows.log_softmax(-1, dtype=torch.promote_types(rows.dtype, torch.float32)))
        return logits

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        model = checkpoint.config.get("model")
        if "tokens" not in checkpoint.config or not isinstance(model, dict) or "n_blocks" not in model:
            return False
        # SEDD's config, from which this one descends, has a graph
        return model.get("type") == "ddit_wot" or "graph" not in checkpoint.config

    @classmethod
    def _from_checkpoint(cls, checkpoint: Checkpoint, variant: str | None = None) -> Self:
        file = checkpoint.weights_file(variant)
        tensors = read_tensors(file)
        try:
            with torch.device("meta"):
                model = cls(checkpoint.config)
        except ValueError as error:
            raise ValueError(f"{checkpoint.config_file}: {error}") from error
        assign_weights(model, tensors, str(file))
        return model

    def _config(self) -> dict[str, Any]:
        return self.config

    def _hub_tokenizer(self) -> str | None:
        return "gpt2" if self.vocab_size == _GPT2_VOCAB_SIZE else None


def _check_config(config: dict[str, Any]) -> None:
    model = config.get("model")
    if not isinstance(model, dict):
        raise ValueError("`config` must hold an object 'model'.")
    sizes = {"tokens": config.get("tokens")}
    sizes |= {f"model.{key}": model.get(key) for key in ("hidden_size", "n_heads", "n_blocks", "length")}
    for key, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"`config` must hold a positive integer '{key}', got {value!r}.")
    if model["hidden_size"] % (2 * model["n_heads"]):
        raise ValueError("'model.hidden_size' in `config` must be a multiple of twice 'model.n_heads'.")
    dropout = model.get("dropout")
    if not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ValueError(f"'model.dropout' in `config` must be in [0, 1), got {dropout!r}.")


def _noise_schedule(noise: dict[str, Any]) -> NoiseSchedule:
    kind = noise.get("type", "loglinear")
    if kind not in _NOISE_NAMES:
        raise ValueError(f"'noise.type' in `config` must be one of {sorted(_NOISE_NAMES)}, got {kind!r}.")
    sigmas = {key: noise[key] for key in ("sigma_min", "sigma_max") if key in noise}
    return make_noise_schedule(_NOISE_NAMES[kind], **sigmas)
