"""Halton-MaskGIT: class-conditional images as grids of codebook tokens (https://huggingface.co/papers/2503.17076).

Reads the released `.pth` files, and a layout of our own: `config.json` and `model.safetensors`.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F

# diffusers looks for `ModelMixin` in this module when it reloads a pipeline
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401
from torch import nn

from ..sampling.noise import LogLinear
from .base import Denoiser, build_model
from .files import Checkpoint, read_pickle, read_weights


SUFFIX = ".pth"
# the release has no config; heads are all that its tensors do not tell: (hidden_dim, depth) -> heads
_RELEASED_HEADS = {(384, 6): 6, (512, 12): 6, (768, 12): 12, (1024, 24): 16, (1152, 28): 16}
_WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
_CONFIG_KEYS = {"input_size", "hidden_dim", "codebook_size", "nclass"}


def rms_norm(x: torch.Tensor, weight: torch.Tensor | None = None, bias: torch.Tensor | None = None) -> torch.Tensor:
    """RMS norm with statistics in float32 (or float64) and an eps of 1e-5."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    out = F.rms_norm(wide, x.shape[-1:], None if weight is None else weight.to(wide.dtype), eps=1e-5)
    return (out if bias is None else out + bias).to(x.dtype)


class RMSNorm(nn.Module):
    def __init__(self, dim: int, bias: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, self.weight, self.bias)


class Attention(nn.Module):
    """Full attention. Queries and keys are normalised over all heads together, which need not fill the width."""

    def __init__(self, dim: int, num_heads: int, dropout: float):
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        width = dim // num_heads * num_heads
        self.wq = nn.Linear(dim, width, bias=False)
        self.wk = nn.Linear(dim, width, bias=False)
        self.wv = nn.Linear(dim, width, bias=False)
        self.wo = nn.Linear(width, dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        qkv = rms_norm(self.wq(x)), rms_norm(self.wk(x)), self.wv(x)
        q, k, v = (y.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for y in qkv)
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return F.dropout(self.wo(out.transpose(1, 2).flatten(2)), self.dropout, self.training)


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, dim: int, mlp_dim: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        width = _feed_forward_width(mlp_dim)
        self.w1 = nn.Linear(dim, width, bias=False)
        self.w2 = nn.Linear(width, dim, bias=False)
        self.w3 = nn.Linear(dim, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w2(F.dropout(F.silu(self.w1(x)) * self.w3(x), self.dropout, self.training))


class Block(nn.Module):
    def __init__(self, dim: int, num_heads: int, mlp_dim: int, dropout: float):
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.ln1 = RMSNorm(dim)
        self.attn = Attention(dim, num_heads, dropout)
        self.ln2 = RMSNorm(dim)
        self.ff = FeedForward(dim, mlp_dim, dropout)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.mlp(condition)[:, None].chunk(6, dim=-1)
        x = x + gate1 * self.attn(self.ln1(x) * (1 + scale1) + shift1)
        return x + gate2 * self.ff(self.ln2(x) * (1 + scale2) + shift2)


class Trunk(nn.Module):
    def __init__(self, dim: int, depth: int, num_heads: int, mlp_dim: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(Block(dim, num_heads, mlp_dim, dropout) for _ in range(depth))

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x, condition)
        return x


class AdaptiveNorm(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.norm_final = RMSNorm(dim, bias=True)
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        shift, scale = self.mlp(condition)[:, None].chunk(2, dim=-1)
        return self.norm_final(x) * (1 + scale) + shift


class MaskGITDenoiser(Denoiser):
    r"""
    The class-conditional transformer of Halton-MaskGIT (https://huggingface.co/papers/2503.17076).

    It has no time input, because it sees how much is masked. Its noise is called log-linear, under which `t` is the
    share of masked tokens. (It was trained with shares `arccos(r) / (pi / 2)`, r uniform: mostly masked canvases.)

    Args:
        config (`dict`): `input_size` (side n of the canvas), `hidden_dim`, `codebook_size`, `depth`, `heads`,
            `nclass`, and perhaps `mlp_dim` (default: 4 `hidden_dim`), `register` (1) and `dropout` (0.1); the rest is
            kept for saving.

    Attributes:
        canvas_shape (`tuple[int, int]`): height and width of the canvas, in tokens.
        num_classes (`int`): number of classes; also the id of the null class, which stands for "no label".

    Raises:
        ValueError: if one of these keys is missing or unusable.
    """

    defers_head = True

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        config = _checked(config)
        side, dim = config["input_size"], config["hidden_dim"]
        self.config = config
        self.vocab_size = self.mask_token_id = config["codebook_size"]
        self.num_classes = config["nclass"]
        self.canvas_shape = side, side
        self.length = side * side
        self.noise = LogLinear()
        self.cls_emb = nn.Embedding(self.num_classes + 1, dim)
        self.tok_emb = nn.Embedding(self.vocab_size + 1, dim)
        self.pos_emb = nn.Embedding(self.length, dim)
        self.reg_tokens = nn.Embedding(config["register"], dim) if config["register"] else None
        self.transformer = Trunk(dim, config["depth"], config["heads"], config["mlp_dim"], config["dropout"])
        self.last_norm = AdaptiveNorm(dim)
        self.head_bias = nn.Parameter(torch.zeros(self.vocab_size + 1))

    def forward(
        self,
        tokens: torch.Tensor,
        t: torch.Tensor | None = None,
        *,
        class_labels: torch.Tensor | None = None,
        guidance_scale: float = 0.0,
        return_hidden_states: bool = False,
    ) -> torch.Tensor:
        """Raw logits of the clean tokens. The last column is the mask's. It was trained too, and must never be drawn.

        Args:
            tokens (`torch.LongTensor` of shape `(batch_size, n * n)` or `(batch_size, n, n)`): masked where equal to
                `mask_token_id`.
            t (*optional*): ignored.
            class_labels (`torch.LongTensor` of shape `(batch_size,)`, *optional*): classes in `[0, num_classes)`, or
                `num_classes` for none; default: none.
            guidance_scale (`float`, defaults to 0.0): the w of classifier-free guidance in the authors' convention,
                `(1 + w) conditional - w unconditional`, by one call on a doubled batch. 0 is none. (That of diffusers'
                pipelines is 1 + w.)
            return_hidden_states (`bool`, defaults to `False`): whether to stop before the head.

        Returns:
            `torch.Tensor` of shape `(batch_size, n * n, vocab_size + 1)`.

        Raises:
            ValueError: if shapes do not fit.
        """
        if class_labels is None or guidance_scale == 0:
            hidden = self.hidden_states(tokens, t, class_labels)
        else:
            labels = torch.cat([class_labels, torch.full_like(class_labels, self.num_classes)])
            both = self.hidden_states(torch.cat([tokens, tokens]), t, labels)
            conditional, unconditional = both.chunk(2)
            # the head is affine and the weights add up to 1: guided hidden states give the guided logits
            hidden = torch.lerp(unconditional, conditional, 1.0 + guidance_scale)
        return hidden if return_hidden_states else self.head(hidden)

    def hidden_states(
        self, tokens: torch.Tensor, t: torch.Tensor | None = None, class_labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Output of the last block, after the adaptive norm: `(batch_size, n * n, hidden_dim)`."""
        B, L = len(tokens), self.length
        if tokens.shape[1:] not in ((L,), self.canvas_shape):
            n = math.isqrt(L)
            raise ValueError(f"`tokens` must have shape (B, {L}) or (B, {n}, {n}), got {tuple(tokens.shape)}.")
        if class_labels is None:
            class_labels = tokens.new_full((B,), self.num_classes)
        if class_labels.shape != (B,):
            raise ValueError(f"`class_labels` must have shape ({B},), got {tuple(class_labels.shape)}.")
        condition = self.cls_emb(class_labels)
        x = self.tok_emb(tokens.flatten(1)) + self.pos_emb.weight
        if self.reg_tokens is not None:
            x = torch.cat([x, self.reg_tokens.weight.expand(B, -1, -1)], dim=1)
        x = self.transformer(x, condition)[:, :L]
        return self.last_norm(x, condition)

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Raw logits `(..., vocab_size + 1)`, mask column last. The weight is that of the token embedding."""
        return F.linear(hidden, self.tok_emb.weight, self.head_bias)

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        if _own_config(checkpoint):
            return True
        pickles = checkpoint.pickles(SUFFIX)
        return bool(pickles) and _released_tensors(read_pickle(pickles[0])) is not None

    @classmethod
    def _from_checkpoint(cls, checkpoint: Checkpoint, variant: str | None = None, heads: int | None = None) -> Self:
        """`heads`: number of attention heads, where neither a `config.json` nor the sizes of the release tell it."""
        file = checkpoint.weights_or_pickle(SUFFIX, variant)
        if file.suffix == SUFFIX:
            tensors, where = _released(file), file
        else:
            tensors, where = read_weights(checkpoint, variant)
        config = _sizes(tensors, where) | _own_config(checkpoint)
        if heads is not None:
            config["heads"] = heads
        if "heads" not in config:
            raise ValueError(
                f"{where}: the number of attention heads cannot be told from tensors of these sizes. Pass `heads`, or"
                " put a config.json with 'heads' beside the file."
            )
        config_file = checkpoint.config_file if _own_config(checkpoint) else file
        return build_model(lambda: cls(config), config_file, _untied(tensors, where), where)

    def _config(self) -> dict[str, Any]:
        return self.config


def _own_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The content of `config.json`, if it is of this family; else nothing."""
    return checkpoint.config if checkpoint.config.keys() >= _CONFIG_KEYS else {}


def _released(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a released pickle, without the wrappers' part of their names."""
    tensors = _released_tensors(read_pickle(file))
    if tensors is None:
        raise ValueError(f"{file} must hold 'model_state_dict' with the tensors of a Halton-MaskGIT transformer.")
    return tensors


def _released_tensors(content: Any) -> dict[str, torch.Tensor] | None:
    """The tensors in a released pickle, or None if it is none."""
    state = content.get("model_state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(x, torch.Tensor) for x in state.values()):
        return None
    tensors = {}
    for name, tensor in state.items():
        name = str(name)
        for wrapper in _WRAPPERS:
            name = name.replace(wrapper, "")
        tensors[name] = tensor
    return tensors if tensors.keys() & {"tok_emb.weight", "cls_emb.weight"} else None


def _sizes(tensors: Mapping[str, torch.Tensor], file: Path) -> dict[str, Any]:
    """The config, as far as the tensors' shapes tell it."""
    names = ["cls_emb.weight", "tok_emb.weight", "pos_emb.weight", "transformer.layers.0.ff.w1.weight"]
    for name in names:
        if name not in tensors or tensors[name].ndim != 2:
            raise ValueError(f"{file} lacks a matrix {name}.")
    classes, codes, positions, width = (tensors[name].shape[0] for name in names)
    dim = tensors["tok_emb.weight"].shape[1]
    depth = len({name.split(".")[2] for name in tensors if name.startswith("transformer.layers.")})
    registers = tensors.get("reg_tokens.weight")
    return {
        "input_size": math.isqrt(positions),
        "hidden_dim": dim,
        "codebook_size": codes - 1,
        "depth": depth,
        "mlp_dim": 4 * dim if _feed_forward_width(4 * dim) == width else 3 * width // 2,
        "nclass": classes - 1,
        "register": 0 if registers is None else registers.shape[:1].numel(),
    } | ({"heads": _RELEASED_HEADS[dim, depth]} if (dim, depth) in _RELEASED_HEADS else {})


def _feed_forward_width(mlp_dim: int) -> int:
    """Two thirds of the nominal width, in multiples of 256."""
    return -(-(2 * mlp_dim // 3) // 256) * 256


def _untied(tensors: dict[str, torch.Tensor], file: Path) -> dict[str, torch.Tensor]:
    """Our names of the tensors. The release stores the tied matrix of embedding and head twice."""
    if "head.bias" not in tensors:
        return tensors
    if "head.weight" not in tensors:
        raise ValueError(f"{file} lacks tensors for this model: head.weight.")
    if not torch.equal(tensors["head.weight"], tensors["tok_emb.weight"]):
        raise ValueError(f"{file}: head.weight and tok_emb.weight are tied in this model, but differ.")
    own = {name: tensor for name, tensor in tensors.items() if name not in ("head.weight", "head.bias")}
    return own | {"head_bias": tensors["head.bias"]}


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    """The config with its defaults."""
    for key in ("input_size", "hidden_dim", "codebook_size", "depth", "heads", "nclass"):
        _check_integer(config, key, 1)
    config = {"mlp_dim": 4 * config["hidden_dim"], "register": 1, "proj": 1, "dropout": 0.1, **config}
    _check_integer(config, "mlp_dim", 1)
    _check_integer(config, "register", 0)
    if config["heads"] > config["hidden_dim"]:
        raise ValueError(f"'heads' in `config` must be at most 'hidden_dim', got {config['heads']}.")
    if config["proj"] != 1:
        raise ValueError(f"'proj' in `config` must be 1 (no published model has another), got {config['proj']!r}.")
    dropout = config["dropout"]
    if not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ValueError(f"'dropout' in `config` must be in [0, 1), got {dropout!r}.")
    return config


def _check_integer(config: dict[str, Any], key: str, low: int) -> None:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"`config` must hold an integer '{key}' >= {low}, got {value!r}.")
