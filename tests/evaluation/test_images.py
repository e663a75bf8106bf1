"""FID of folders of images: laws with known values."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lsd_sampler.evaluation import frechet_inception_distance


class MeanColour(torch.nn.Module):
    """Stands for Inception: of images of one colour it knows all there is."""

    num_features = 3

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.double().mean((2, 3))


def folder_of_colours(folder: Path, colours: np.ndarray, size: int = 4) -> Path:
    folder.mkdir()
    for i, colour in enumerate(colours):
        Image.fromarray(np.full((size + i % 2, size, 3), colour, dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def test_fid_of_folders_is_the_distance_of_gaussians(tmp_path: Path) -> None:
    """Of laws with one covariance it is the squared distance of their means."""
    pytest.importorskip("torchmetrics")
    colours = np.random.default_rng(0).integers(50, 150, (20, 3))
    first, second = (folder_of_colours(tmp_path / str(shift), colours + shift) for shift in (0, 10))
    assert frechet_inception_distance(first, second, network=MeanColour(), batch_size=7) == pytest.approx(
        300, abs=1e-3
    )
    assert frechet_inception_distance(first, first, network=MeanColour()) == pytest.approx(0, abs=1e-3)


def test_fid_needs_images_and_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="two images"):
        frechet_inception_distance(tmp_path, tmp_path)
    folder = folder_of_colours(tmp_path / "images", np.zeros((2, 3)))
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    with pytest.raises(ImportError, match=r"pip install lsd_sampler\[fid\]"):
        frechet_inception_distance(folder, folder)
