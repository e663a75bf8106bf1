"""The classifier that judges images: what is read is what was written, and damage is named."""

from pathlib import Path

import pytest
import torch
from helpers.tiny_garments import classifier
from safetensors.torch import load_file, save_file

from lsd_sampler.evaluation import ImageClassifier


FILE = "classifier.safetensors"


def test_on_disk(tmp_path: Path) -> None:
    made, images = classifier(), torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(0))
    made.save_pretrained(tmp_path)
    found = ImageClassifier.from_pretrained(tmp_path)
    assert torch.equal(made(images), found(images)) and not found.training
    assert torch.equal(found.head(found.features(images)), found(images))


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=FILE):
        ImageClassifier.from_pretrained(tmp_path)
    classifier().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / FILE)
    for changed in ({}, tensors | {"head.weight": torch.zeros(8)}, tensors | {"head.bias": torch.zeros(7)}):
        save_file(changed, tmp_path / FILE)
        with pytest.raises(ValueError, match=FILE):
            ImageClassifier.from_pretrained(tmp_path)
