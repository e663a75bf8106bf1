"""A network of one's own, whose options are where they please."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from lsd_sampler import Denoiser


class Part(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0


class Own(Denoiser):
    """A network of one's own, whose options are where they please."""

    def __init__(self, **options: Any):
        super().__init__()
        self.mask_token_id, self.vocab_size, self.length = 4, 4, 8
        self.part = Part()
        self.sharp, self._sharper = 1.0, False
        self.table = torch.zeros(4)
        self.settings = SimpleNamespace(levels=[1, 2], names={"a", "b", "c"})
        self.activation: Callable = torch.relu
        for name, value in options.items():
            setattr(self, name, value)

    def forward(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
        return torch.zeros(*tokens.shape, 4)
