"""A small classifier of grey images, and the Fréchet distance of its features: a judge that needs no download."""

import os
from pathlib import Path
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import nn

from ..denoisers.files import check_tensors, read_tensors, resolve_folder, write_tensors


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
        folder = resolve_folder(pretrained_model_name_or_path, **where)  # pyright: ignore[reportArgumentType]
        file = folder / CLASSIFIER_NAME
        tensors = read_tensors(file)
        head = tensors.get("head.weight")
        if head is None or head.ndim != 2:
            raise ValueError(f"{file} lacks a matrix head.weight.")
        model = cls(head.shape[0], head.shape[1] // 4)
        check_tensors(model.state_dict(), tensors, str(file))
        model.load_state_dict(tensors)
        return model.eval()


class Moments(NamedTuple):
    """Mean and covariance of features, in float64; of several sets of weights, with an axis for these in front.

    Attributes:
        mean: (`torch.Tensor` of shape `(dim,)` or `(num_sets, dim)`).
        covariance: (`torch.Tensor` of shape `(dim, dim)` or `(num_sets, dim, dim)`), without bias.
    """

    mean: torch.Tensor
    covariance: torch.Tensor


def moments(features: torch.Tensor, weights: torch.Tensor | None = None) -> Moments:
    """The moments of features, on the CPU.

    Args:
        features (`torch.Tensor` of shape `(number, dim)`): of at least two images.
        weights (`torch.Tensor` of shape `(number, num_sets)`, *optional*): how often each image counts in each set.

    Raises:
        ValueError: if the shape is another.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"`features` must be of at least two images, (number, dim), got {tuple(features.shape)}.")
    x_ND = features.detach().to("cpu", torch.float64)
    if weights is None:
        return Moments(x_ND.mean(0), x_ND.T.cov().view(x_ND.shape[1], -1))
    w_NR = weights.to("cpu", torch.float64)
    number_R = w_NR.sum(0)
    mean_RD = w_NR.T @ x_ND / number_R[:, None]
    squares = torch.stack([(x_ND * w_N[:, None]).T @ x_ND for w_N in w_NR.T])
    outer = mean_RD[:, :, None] * mean_RD[:, None, :] * number_R[:, None, None]
    return Moments(mean_RD, (squares - outer) / (number_R - 1)[:, None, None])


def distance_of_moments(found: Moments, reference: Moments) -> torch.Tensor:
    """Fréchet distance of Gaussians with these moments, one for each set of `found`.

    Raises:
        ValueError: if their dimensions differ.
    """
    if found.mean.shape[-1] != reference.mean.shape[-1]:
        dims = f"{found.mean.shape[-1]} and {reference.mean.shape[-1]}"
        raise ValueError(f"Features to be compared must be of one width, got {dims}.")
    # tr (AB)^1/2 = tr (B^1/2 A B^1/2)^1/2, of a symmetric matrix; rounding makes eigenvalues of 0 negative
    values, vectors = torch.linalg.eigh(reference.covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ found.covariance @ root).clamp(min=0).sqrt().sum(-1)
    traces = found.covariance.diagonal(dim1=-2, dim2=-1).sum(-1) + reference.covariance.trace()
    return (found.mean - reference.mean).square().sum(-1) + traces - 2 * overlap


def frechet_distance(features: torch.Tensor, reference: torch.Tensor) -> float:
    """Distance of two Gaussians fitted to features (https://huggingface.co/papers/1706.08500), 0 at best, in float64.

    It falls as the number of samples grows: compare equal numbers.

    Args:
        features, reference (`torch.Tensor` of shape `(number, dim)`): of at least two images each.

    Raises:
        ValueError: if the shapes do not fit.
    """
    return float(distance_of_moments(moments(features), moments(reference)))
