"""The transformer trunk that SEDD, RADD and MDLM share (DDiT), built from `torch` alone.

Parameter names are those of the official checkpoints, so weights map by name.
"""

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
        angle = torch.outer(torch.arange(length, device=self.inv_freq.device).float(), self.inv_freq.float())
        angle = torch.cat([angle, angle], dim=-1)
        return angle.cos(), angle.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotates the pairs `(j, j + d/2)` of `x`, of shape `(batch, heads, length, d)`."""
    first, second = x.float().chunk(2, dim=-1)
    return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)


class LayerNorm(nn.Module):
    """Statistics in float32, eps 1e-5; weight, and bias where the family has one."""

    def __init__(self, dim: int, bias: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.weight.float(), None if self.bias is None else self.bias.float()
        return F.layer_norm(x.float(), x.shape[-1:], weight, bias, eps=1e-5).to(x.dtype)


def attention(qkv: torch.Tensor, num_heads: int, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Full bidirectional attention. `qkv` has shape `(batch, length, 3 * heads * d)`, laid out `(3, heads, d)`."""
    batch, length, width = qkv.shape
    q, k, v = qkv.view(batch, length, 3, num_heads, width // (3 * num_heads)).permute(2, 0, 3, 1, 4)
    out = F.scaled_dot_product_attention(rotate(q, *rotary), rotate(k, *rotary), v)
    return out.transpose(1, 2).reshape(batch, length, width // 3)
