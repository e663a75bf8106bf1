"""A network of one's own as a `Denoiser`, for tests."""

from typing import Any

import torch
from torch import nn

from lsd_sampler import Denoiser, LSDScheduler, MaskedDiffusionPipeline


class Own(Denoiser):
    """An embedding, and a layer of a name that the test chooses."""

    def __init__(self, name: str = "out", layer: Any = None):
        super().__init__()
        self.vocab_size = self.mask_token_id = 5
        self.length, self.name = 6, name
        self.table = nn.Embedding(6, 4)
        setattr(self, name, nn.Linear(4, 5) if layer is None else layer)

    def forward(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:  # pyright: ignore
        return getattr(self, self.name)(self.table(tokens))


def generate(denoiser: Denoiser) -> torch.Tensor:
    pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config()))
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return pipe(num_samples=3, num_inference_steps=2, generator=generator, output_type="ids").sequences  # pyright: ignore
