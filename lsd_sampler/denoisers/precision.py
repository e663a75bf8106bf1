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


class KeepsBuffers(nn.Module):
    """A module whose parameters are cast by `.to(dtype)`, `.half()` and the like, but whose buffers, such as the
    frequencies of rotary embeddings, are only moved.
    """

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "KeepsBuffers":
        before = [(m, dict(m.named_buffers(recurse=False))) for m in self.modules()]
        super()._apply(fn, recurse)
        for module, buffers in before:
            for name, buffer in buffers.items():
                if module._buffers[name].dtype != buffer.dtype:  # pyright: ignore[reportOptionalMemberAccess]
                    module._buffers[name] = buffer.to(module._buffers[name].device)  # pyright: ignore
        return self
