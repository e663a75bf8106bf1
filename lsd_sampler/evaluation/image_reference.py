"""What samples of an image model are compared with, in its folder: no data set is needed to judge them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from ..denoisers.files import read_companion, write_tensors
from .frechet import Moments


REFERENCE_NAME = "image_reference.safetensors"
_NAMES = ("mean", "covariance", "number", "accuracy", "sequences", "labels")


@dataclass(frozen=True)
class ImageReference:
    """Real images: the moments of an [`ImageClassifier`]'s features, and some held-out ones as tokens, for the floor.

    Attributes:
        moments: mean and covariance of the features of real test images.
        number: how many these were.
        accuracy: share of them that the classifier takes for what they are.
        sequences: (`torch.LongTensor` of shape `(num, length)`), other real images, which the model has not seen
            either, through its codebook.
        labels: (`torch.LongTensor` of shape `(num,)`), the classes of these: each class in turn.
    """

    moments: Moments
    number: int
    accuracy: float
    sequences: torch.Tensor
    labels: torch.Tensor

    def __post_init__(self) -> None:
        mean, covariance = self.moments
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            shapes = f"{tuple(mean.shape)} and {tuple(covariance.shape)}"
            raise ValueError(f"`moments` must have shapes (dim,) and (dim, dim), got {shapes}.")
        if self.sequences.ndim != 2 or self.labels.shape != self.sequences.shape[:1]:
            shapes = f"{tuple(self.sequences.shape)} and {tuple(self.labels.shape)}"
            raise ValueError(f"`sequences` and `labels` must have shapes (num, length) and (num,), got {shapes}.")

    def save_pretrained(self, save_directory: str | os.PathLike) -> None:
        """Writes `image_reference.safetensors`; tokens and labels take a byte each where they fit."""
        tensors = {
            "mean": self.moments.mean.double(),
            "covariance": self.moments.covariance.double(),
            "number": torch.tensor([self.number]),
            "accuracy": torch.tensor([self.accuracy], dtype=torch.float64),
            "sequences": _small(self.sequences),
            "labels": _small(self.labels),
        }
        write_tensors(tensors, Path(save_directory) / REFERENCE_NAME)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **where: object) -> Self:
        """Reads `image_reference.safetensors` of a folder or a Hub repository; `where` as for `load_denoiser`.

        Raises:
            OSError: if it is missing.
            ValueError: if it is damaged or holds something else; the message names the file.
        """
        tensors, file = read_companion(pretrained_model_name_or_path, REFERENCE_NAME, **where)
        if set(tensors) != set(_NAMES):
            raise ValueError(f"{file} must hold the tensors {', '.join(_NAMES)}, got {sorted(tensors)}.")
        mean, covariance, number, accuracy, sequences, labels = (tensors[name] for name in _NAMES)
        if number.numel() != 1 or accuracy.numel() != 1:
            raise ValueError(f"{file}: 'number' and 'accuracy' must be single numbers.")
        try:
            moments = Moments(mean.double(), covariance.double())
            return cls(moments, int(number), float(accuracy), sequences.long(), labels.long())
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error


def in_turn(labels: torch.Tensor) -> torch.Tensor:
    """Indices of samples such that their classes come in turn, 0, 1, ..., as long as all classes last.

    Args:
        labels (`torch.LongTensor` of shape `(num,)`): classes, each of which occurs.
    """
    each = [(labels == k).nonzero()[:, 0] for k in range(int(labels.max()) + 1)]
    fewest = min(map(len, each))
    return torch.stack([indices[:fewest] for indices in each], dim=1).flatten()


def _small(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.uint8 if not values.numel() or int(values.max()) < 256 else torch.int32)
