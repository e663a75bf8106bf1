"""Modules whose numbers lose their meaning in a lower precision."""

from collections.abc import Callable

import torch
from torch import nn


class KeepsDtype(nn.Module):
    """A module that `.to(dtype)`, `.half()` and the like move, but never cast."""

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "KeepsDtype":
        def move(x: torch.Tensor) -> torch.Tensor:
            moved = fn(x)
            return moved if moved.dtype == x.dtype else x.to(moved.device)

        return super()._apply(move, recurse)
