"""Fréchet inception distance of folders of images. A model of codebook tokens needs its VQ decoder to make images."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch


_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"  # torch-fidelity looks for them there
_WEIGHTS_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{_WEIGHTS}"
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


def image_files(folder: str | Path) -> list[Path]:
    """The images in a folder and below it, sorted.

    Raises:
        ValueError: if there are fewer than two.
    """
    files = sorted(
        path for path in Path(os.path.expanduser(folder)).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES
    )
    if len(files) < 2:
        raise ValueError(f"{str(folder)!r} must hold at least two images ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    return files


def frechet_inception_distance(
    samples: str | Path,
    reference: str | Path,
    *,
    network: torch.nn.Module | None = None,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
) -> float:
    """Distance of two Gaussians fitted to Inception features (https://huggingface.co/papers/1706.08500), 0 at best.

    It falls as the number of samples grows: compare equal numbers. Computed by torchmetrics, in float64.

    Args:
        samples, reference: folders of images, of any size; the network rescales them.
        network (`torch.nn.Module`, *optional*): takes uint8 `(batch_size, 3, height, width)` to `(batch_size, dim)`;
            default: the Inception of torch-fidelity, which downloads its weights once.
        batch_size (`int`): images of one size at a time.
        device: of the network.

    Raises:
        ValueError: if a folder holds fewer than two images.
        ImportError: without torchmetrics and torch-fidelity; the message says how to install them.
        OSError: if an image cannot be read, or the weights cannot be downloaded; the message says where to put them.
    """
    folders = {False: image_files(samples), True: image_files(reference)}
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance  # pyright: ignore[reportMissingImports]

        metric: Any = FrechetInceptionDistance(feature=2048 if network is None else network)
    except ImportError as error:  # torchmetrics raises a subclass where torch-fidelity is missing
        raise ImportError(
            f"FID needs torchmetrics and torch-fidelity: `pip install lsd_sampler[fid]` ({error})."
        ) from error
    except OSError as error:
        raise OSError(
            f"the Inception weights cannot be downloaded ({error}): get {_WEIGHTS_URL} on a machine with network and"
            f" put it at {Path(torch.hub.get_dir()) / 'checkpoints' / _WEIGHTS}."
        ) from error
    metric = metric.to(device).set_dtype(torch.float64)
    for real, files in folders.items():
        for start in range(0, len(files), batch_size):
            for batch in _batches_of_one_size([_read(path) for path in files[start : start + batch_size]]):
                metric.update(batch.to(device), real=real)
    return float(metric.compute())


def _read(path: Path) -> torch.Tensor:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).movedim(-1, 0)
    except OSError as error:
        raise OSError(f"{str(path)!r} cannot be read as an image.") from error


def _batches_of_one_size(images: list[torch.Tensor]) -> list[torch.Tensor]:
    sizes = dict.fromkeys(image.shape for image in images)
    return [torch.stack([image for image in images if image.shape == size]) for size in sizes]
