"""The Fréchet distance of Gaussians fitted to features, also for many resamples of them.

Shape suffixes: N samples, D features, B resamples.
"""

import numpy as np
import torch


class FrechetReference:
    """Real data as a Gaussian in a space of features, from which distances are measured.

    `|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2))` (https://huggingface.co/papers/1706.08500), in float64, by the
    eigenvalues of a symmetric matrix: covariances need not have full rank.

    Args:
        features (`torch.Tensor` of shape `(number, dim)`): of at least two samples.

    Raises:
        ValueError: if they are fewer.
    """

    def __init__(self, features: torch.Tensor):
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(f"`features` must be of at least two samples, got shape {tuple(features.shape)}.")
        x_ND = features.detach().to("cpu", torch.float64)
        covariance = torch.atleast_2d(x_ND.T.cov())
        self.mean_D, self.trace = x_ND.mean(0), covariance.trace()
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
