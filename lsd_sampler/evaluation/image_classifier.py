"""A small classifier of grey images: a judge that needs no download."""

import os
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import nn

from ..denoisers.files import check_tensors, read_companion, write_tensors


CLASSIFIER_NAME = "classifier.safetensors"


class ImageClassifier(nn.Module):
    r"""
    A convolutional network of five layers. Fréchet distances are computed from its features before the last layer.

    Args:
        num_classes (`int`): number of classes.
        width (`int`, defaults to 32): channels of the first layer; the features are four times as many.
    """

    def __init__(self, num_classes: int, width: int = 32):
        super().__init__()
        sizes = [(1, width, 1), (width, width, 2), (width, 2 * width, 1), (2 * width, 4 * width, 2)]
        layers: list[nn.Module] = []
        for inputs, outputs, stride in sizes:
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(4 * width, num_classes)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """From images `(batch_size, H, W)` in [0, 1] to `(batch_size, 4 * width)`, averaged over the image."""
        return self.layers(images[:, None]).mean((2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of the classes, `(batch_size, num_classes)`."""
        return self.head(F.dropout(self.features(images), 0.3, self.training))

    def save_pretrained(self, save_directory: str | os.PathLike) -> None:
        """Writes `classifier.safetensors`."""
        write_tensors(self.state_dict(), Path(save_directory) / CLASSIFIER_NAME)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **where: object) -> Self:
        """Reads `classifier.safetensors` of a folder or a Hub repository; `where` as for `load_denoiser`.

        Raises:
            OSError: if it is missing.
            ValueError: if it is damaged or holds something else; the message names the file.
        """
        tensors, file = read_companion(pretrained_model_name_or_path, CLASSIFIER_NAME, **where)
        head = tensors.get("head.weight")
        if head is None or head.ndim != 2:
            raise ValueError(f"{file} lacks a matrix head.weight.")
        model = cls(head.shape[0], head.shape[1] // 4)
        check_tensors(model.state_dict(), tensors, str(file))
        model.load_state_dict(tensors)
        return model.eval()
