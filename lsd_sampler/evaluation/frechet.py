"""The Fréchet distance of Gaussians fitted to features, also for many resamples of them.

Shape suffixes: N samples, D features, B resamples.
"""

from typing import NamedTuple

import numpy as np
import torch


class Moments(NamedTuple):
    """Mean and covariance of features, in float64.

    Attributes:
        mean: (`torch.Tensor` of shape `(dim,)`).
        covariance: (`torch.Tensor` of shape `(dim, dim)`), without bias.
    """

    mean: torch.Tensor
    covariance: torch.Tensor


def moments(features: torch.Tensor) -> Moments:
    """The moments of features, on the CPU.

    Args:
        features (`torch.Tensor` of shape `(number, dim)`): of at least two samples.

    Raises:
        ValueError: if the shape is another.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"`features` must be of at least two samples, (number, dim), got {tuple(features.shape)}.")
    x_ND = features.detach().to("cpu", torch.float64)
    return Moments(x_ND.mean(0), torch.atleast_2d(x_ND.T.cov()))


def frechet_distance(features: torch.Tensor, reference: torch.Tensor) -> float:
    """Distance of two Gaussians fitted to features (https://huggingface.co/papers/1706.08500), 0 at best, in float64.

    It falls as the number of samples grows: compare equal numbers.

    Args:
        features, reference (`torch.Tensor` of shape `(number, dim)`): of at least two samples each.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if len(features) < 2:
        raise ValueError(f"`features` must be of at least two samples, got {len(features)}.")
    return float(FrechetReference(moments(reference)).distances(features)[0])


class FrechetReference:
    """Real data as a Gaussian in a space of features, from which distances are measured.

    `|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2))` (https://huggingface.co/papers/1706.08500), in float64, by the
    eigenvalues of a symmetric matrix: covariances need not have full rank.

    Args:
        moments ([`Moments`]): of the features of real data.
    """

    def __init__(self, moments: Moments):
        self.mean_D, covariance = (x.to("cpu", torch.float64) for x in moments)
        self.trace = covariance.trace()
        values, vectors = torch.linalg.eigh(covariance)
        self.root_DD = vectors * values.clamp(min=0).sqrt() @ vectors.T

    def distances(self, features: torch.Tensor, weights: torch.Tensor | None = None) -> np.ndarray:
        """The distance of samples, and of resamples of them.

        One sample is a point. None at all, also in a resample, counts as a point at 0.

        Args:
            features (`torch.Tensor` of shape `(num_samples, dim)`): of the samples.
            weights (`torch.Tensor` of shape `(num_samples, num_resamples)`, *optional*): how often each sample is
                drawn in each resample; default: each once.

        Returns:
            `float64` array of shape `(num_resamples,)`, or `(1,)` without `weights`.

        Raises:
            ValueError: if the features have another width than the reference.
        """
        if features.ndim != 2 or features.shape[1] != len(self.mean_D):
            raise ValueError(f"`features` must have width {len(self.mean_D)}, got shape {tuple(features.shape)}.")
        x_ND = features.detach().to("cpu", torch.float64)
        w_NB = torch.ones(len(x_ND), 1, dtype=torch.float64) if weights is None else weights.double()
        y_ND = x_ND @ self.root_DD  # its covariance is R C R, whose eigenvalues are those of C C'
        square_N = x_ND.square().sum(1)
        return np.array([self._distance(x_ND, y_ND, square_N, w_N) for w_N in w_NB.T])

    def _distance(self, x_ND: torch.Tensor, y_ND: torch.Tensor, square_N: torch.Tensor, w_N: torch.Tensor) -> float:
        number = w_N.sum()
        mean_D = w_N @ x_ND / number.clamp(min=1)
        spread = max(float(number) - 1, 1.0)  # as of `torch.cov`, without bias
        trace = (w_N @ square_N - number * mean_D.square().sum()) / spread
        centred_ND = y_ND - mean_D @ self.root_DD
        scaled_ND = centred_ND * (w_N / spread).sqrt()[:, None]
        # both products have the same eigenvalues above 0
        square = scaled_ND @ scaled_ND.T if len(x_ND) < len(mean_D) else scaled_ND.T @ scaled_ND
        root = torch.linalg.eigvalsh(square).clamp(min=0).sqrt().sum()
        return float((mean_D - self.mean_D).square().sum() + trace + self.trace - 2 * root)
