"""Layers of the transformer that SEDD, RADD and MDLM share (DDiT), built from `torch` alone.

Parameter names are those of the official checkpoints, so weights map by name. Norms and angles are computed in float32
or better, whichever precision the weights have.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .precision import KeepsDtype


class Embedding(nn.Module):
    """Row lookup in a matrix named `embedding`, as in the official code."""

    def __init__(self, num_embeddings: int, dim: int):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(num_embeddings, dim))
        nn.init.kaiming_uniform_(self.embedding, a=5**0.5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return F.embedding(tokens, self.embedding)


class Rotary(KeepsDtype):
    """Rotary position embedding, half-split pairs, base 10000, computed in float32. `inv_freq` lies in the checkpoint.

    Frequencies rounded to half precision would turn distant positions by wrong angles, so they are never cast.
    """

    inv_freq: torch.Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("inv_freq", 1.0 / 10_000 ** (torch.arange(0, dim, 2).float() / dim))

    def forward(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and sine of each pair's angle, of shape `(length, dim / 2)`."""
        angle = torch.outer(torch.arange(length, device=self.inv_freq.device).float(), self.inv_freq.float())
        return angle.cos(), angle.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotates the pairs `(j, j + d/2)` of `x`, of shape `(batch, heads, length, d)`."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


class LayerNorm(nn.Module):
    """Statistics in float32 at least, eps 1e-5; weight, and bias where the family has one."""

    def __init__(self, dim: int, bias: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        weight, bias = self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype)
        return F.layer_norm(x.to(dtype), x.shape[-1:], weight, bias, eps=1e-5).to(x.dtype)


def attention(
    qkv: torch.Tensor,
    num_heads: int,
    rotary: tuple[torch.Tensor, torch.Tensor],
    sees: torch.Tensor | None = None,
) -> torch.Tensor:
    """Full bidirectional attention, or to what a query `sees`, bool `(length, length)`. `qkv` has shape `(batch,
    length, 3 * heads * d)`, laid out `(3, heads, d)`.
    """
    batch, length, width = qkv.shape
    q, k, v = qkv.view(batch, length, 3, num_heads, width // (3 * num_heads)).permute(2, 0, 3, 1, 4)
    out = F.scaled_dot_product_attention(rotate(q, *rotary), rotate(k, *rotary), v, attn_mask=sees)
    return out.transpose(1, 2).reshape(batch, length, width // 3)


class TimestepEmbedder(nn.Module):
    """Embeds the total noise of each sequence: cosines and sines of 128 frequencies, then a small MLP."""

    num_frequencies = 128

    def __init__(self, dim: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * self.num_frequencies, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, sigma: torch.Tensor) -> torch.Tensor:
        """From `sigma` of shape `(batch,)` to `(batch, dim)`."""
        index = torch.arange(self.num_frequencies, dtype=torch.float32, device=sigma.device)
        angle = sigma.float()[:, None] * torch.exp(-math.log(10_000) * index / self.num_frequencies)
        features = torch.cat([angle.cos(), angle.sin()], dim=-1)
        return self.mlp(features.to(next(self.mlp.parameters()).dtype))


def modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return x * (1 + scale) + shift


class AdaptiveBlock(nn.Module):
    """A transformer block that a condition shifts, scales and gates (adaLN)."""

    def __init__(self, dim: int, num_heads: int, cond_dim: int, dropout: float):
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.norm1 = LayerNorm(dim, bias=False)
        self.attn_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.attn_out = nn.Linear(dim, dim, bias=False)
        self.norm2 = LayerNorm(dim, bias=False)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(approximate="tanh"), nn.Linear(4 * dim, dim))
        self.adaLN_modulation = nn.Linear(cond_dim, 6 * dim)

    def forward(
        self,
        x: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        condition: torch.Tensor,
        sees: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`x` has shape `(batch, length, dim)`, as has the result; `condition` has shape `(batch, cond_dim)`; `sees`
        is as for `attention`.
        """
        parts = self.adaLN_modulation(condition)[:, None].chunk(6, dim=-1)
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = parts
        qkv = self.attn_qkv(modulate(self.norm1(x), shift_attn, scale_attn))
        h = self.attn_out(attention(qkv, self.num_heads, rotary, sees))
        x = x + gate_attn * F.dropout(h, self.dropout, self.training)
        h = self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))
        return x + gate_mlp * F.dropout(h, self.dropout, self.training)


class AdaptiveOutputLayer(nn.Module):
    """The final norm, which a condition shifts and scales, and the head: called apart."""

    def __init__(self, dim: int, cond_dim: int, num_outputs: int):
        super().__init__()
        self.norm_final = LayerNorm(dim, bias=False)
        self.linear = nn.Linear(dim, num_outputs)
        self.adaLN_modulation = nn.Linear(cond_dim, 2 * dim)

    def normalise(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """The head's input."""
        return modulate(self.norm_final(x), *self.adaLN_modulation(condition)[:, None].chunk(2, dim=-1))
