"""A model without any error behind diffusers' AmusedPipeline, for `amused_pipeline.py`: a world of 1,152 landscapes.

It knows every picture that there is, so its predictions are exact. Every fault of a sample is the sampler's, and can
be counted.
"""

from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AmusedPipeline, AmusedScheduler
from PIL import Image


SIDE, PIXELS = 16, 16  # tokens along an edge of an image, pixels along an edge of a token
DAY = "3d7cc9 6aa3df 9dc6ec cfe5f5 fff3b0 3f7d4e"  # four bands of sky, the sun, the hills
DUSK = "2b2352 6b3a75 c25a6e f19a6b ffd97a 2e2a45"
NIGHT = "070b1e 0e1733 172449 22325e e8ecf5 0b1a17"
COLOURS = torch.tensor(list(bytes.fromhex(DAY + DUSK + NIGHT)), dtype=torch.uint8).view(-1, 3)
V = len(COLOURS)
NO_PROMPT = {
    "prompt_embeds": torch.zeros(1, 1),
    "encoder_hidden_states": torch.zeros(1, 1, 1),
    "guidance_scale": 1.0,
}


def landscapes() -> torch.Tensor:
    """Every picture there is, as tokens (colours). Shape `(num_pictures, SIDE, SIDE)`."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    pictures = []
    for hour, sun_x, sun_y, level, phase in product(range(3), (3, 6, 9, 12), (3, 5, 7), range(10, 14), range(8)):
        picture = y // 4
        picture[(x - sun_x) ** 2 + (y - sun_y) ** 2 < 6] = 4
        picture[y > level + 2 * torch.sin(x / 3 + phase * torch.pi / 4)] = 5
        pictures.append(picture + 6 * hour)
    return torch.stack(pictures)


def landscape_pipeline() -> AmusedPipeline:
    """Call it with `**NO_PROMPT`."""
    scheduler = AmusedScheduler(mask_token_id=V)
    return AmusedPipeline(Decoder(), None, None, Transformer(), scheduler)  # pyright: ignore[reportArgumentType]


def misplaced(images: list[Image.Image]) -> float:
    """Share of tokens in which images differ from the nearest landscape."""
    colours_BHW3 = torch.from_numpy(np.stack(images)[:, ::PIXELS, ::PIXELS])
    differs = (colours_BHW3[:, None] != COLOURS[landscapes()]).any(-1)
    return float(differs.double().mean((-1, -2)).amin(-1).mean())


class Transformer(torch.nn.Module):
    """In the place of aMUSEd's transformer: what the known tokens say about the others, by Bayes' rule."""

    config, device, dtype = SimpleNamespace(sample_size=SIDE), torch.device("cpu"), torch.float32

    def __init__(self, noise: float = 1e-6):
        super().__init__()
        one_hot = F.one_hot(landscapes(), V).flatten(1)
        self.likelihood = (1 - noise) * one_hot + noise / V  # (num_pictures, SIDE * SIDE * V)
        self.log_likelihood = self.likelihood.log()

    def forward(self, tokens_BHW: torch.Tensor, **conditions: Any) -> torch.Tensor:
        known = F.one_hot(tokens_BHW, V + 1)[..., :V].flatten(1).float()  # the last token is the mask: it says nothing
        posterior = (known @ self.log_likelihood.T).softmax(-1)
        return (posterior @ self.likelihood).log().view(*tokens_BHW.shape, V).permute(0, 3, 1, 2)


class Decoder(torch.nn.Module):
    """In the place of aMUSEd's image decoder: each token is a square of one colour."""

    config = SimpleNamespace(block_out_channels=(1,) * 5, latent_channels=1, force_upcast=False)  # PIXELS = 2^(5 - 1)
    device, dtype = torch.device("cpu"), torch.float32

    def decode(self, tokens_BHW: torch.Tensor, **options: Any) -> SimpleNamespace:
        image = COLOURS[tokens_BHW].permute(0, 3, 1, 2) / 255
        return SimpleNamespace(sample=F.interpolate(image, scale_factor=PIXELS))
