"""The reference of images: what is read is what was written, and damage is named."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.tiny_garments import reference
from safetensors.torch import load_file, save_file

from lsd_sampler.evaluation import ImageReference
from lsd_sampler.evaluation.frechet import Moments
from lsd_sampler.evaluation.image_reference import in_turn


FILE = "image_reference.safetensors"


def test_on_disk(tmp_path: Path) -> None:
    made = reference()
    made.save_pretrained(tmp_path)
    found = ImageReference.from_pretrained(tmp_path)
    for one, other in zip(made.moments, found.moments, strict=True):
        assert torch.equal(one, other) and other.dtype == torch.float64
    assert torch.equal(made.sequences, found.sequences) and torch.equal(made.labels, found.labels)
    assert (found.number, found.accuracy, found.sequences.dtype) == (100, 0.75, torch.int64)
    large = replace(made, sequences=made.sequences + 1000)
    large.save_pretrained(tmp_path)
    assert torch.equal(ImageReference.from_pretrained(tmp_path).sequences, large.sequences)


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=FILE):
        ImageReference.from_pretrained(tmp_path)
    reference().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / FILE)
    changes = [
        ({"mean": torch.zeros(3)}, "`moments` must have shapes"),
        ({"labels": torch.zeros(3)}, "`sequences` and `labels` must have shapes"),
        ({"number": torch.zeros(2)}, "'number' and 'accuracy' must be single numbers"),
        ({"more": torch.zeros(2)}, "must hold the tensors mean, covariance"),
    ]
    for change, words in changes:
        save_file(tensors | change, tmp_path / FILE)
        with pytest.raises(ValueError, match=f"{FILE}.*{words}"):
            ImageReference.from_pretrained(tmp_path)
    (tmp_path / FILE).write_bytes(b"x")
    with pytest.raises(ValueError, match=FILE):
        ImageReference.from_pretrained(tmp_path)


def test_moments_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="`moments`"):
        replace(reference(), moments=Moments(torch.zeros(2), torch.eye(3)))


def test_classes_come_in_turn_as_long_as_all_last() -> None:
    labels = torch.tensor([2, 0, 0, 1, 2, 1, 0, 1])
    chosen = in_turn(labels)
    assert labels[chosen].tolist() == [0, 1, 2, 0, 1, 2] and len(set(chosen.tolist())) == 6
