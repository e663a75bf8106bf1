"""A folder as `models/garments`, with few random parameters: canvases of 3 x 3, patches of 2 x 2, 5 classes."""

from pathlib import Path

import torch
from helpers.tiny_maskgit import random_model

from lsd_sampler.denoisers import MaskGITDenoiser
from lsd_sampler.denoisers.patch_codebook import PatchCodebook
from lsd_sampler.evaluation import ImageClassifier, ImageReference
from lsd_sampler.evaluation.frechet import moments


def codebook() -> PatchCodebook:
    return PatchCodebook(torch.rand(7, 2, 2, generator=torch.Generator().manual_seed(1)))


def classifier() -> ImageClassifier:
    torch.manual_seed(2)
    return ImageClassifier(5, width=2).eval()


def reference(number: int = 40, dim: int = 8) -> ImageReference:
    generator = torch.Generator().manual_seed(3)
    features = torch.rand(100, dim, generator=generator)
    tokens, labels = torch.randint(7, (number, 9), generator=generator), torch.arange(number) % 5
    return ImageReference(moments(features), 100, 0.75, tokens, labels)


def save_garments(folder: Path) -> MaskGITDenoiser:
    torch.manual_seed(0)
    model = random_model()
    for part in (model, codebook(), classifier(), reference()):
        part.save_pretrained(folder)
    return model
