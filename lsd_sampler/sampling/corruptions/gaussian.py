import functools

import numpy as np
import torch

from .base import Corruption


_SMALLEST = 1e-8  # transition probabilities below this are 0, and this is added to denominators, as in tauLDR
_EPS = 1e-9
_SMALLEST_WEIGHT = 1e-290  # smallest weight of a level whose inverse is finite


class Gaussian(Corruption):
    """Tokens are levels on a scale and move mostly to near ones; the stationary law is a discretised Gaussian (tauLDR,
    https://huggingface.co/papers/2205.14987, appendix). There is no mask.

    The stationary law has its middle at level S / 2, counted from 1. The law of a token at `t = 1` has it at
    `S // 2`, as in the authors' code: for an odd S the two differ.

    A score is computed from transition probabilities in float32, as the authors compute them. Those below 1e-7 are
    mostly rounding errors, yet published reverse rates divide by them. All else is exact.

    Args:
        num_states (`int`): S, number of levels.
        rate_sigma (`float`): scale of a move.
        q_sigma (`float`): scale of the stationary law.

    Raises:
        ValueError: if a scale is not positive, or `q_sigma` so small that the outermost levels have no probability.
    """

    name = "gaussian"

    def __init__(self, num_states: int, rate_sigma: float, q_sigma: float):
        if not (rate_sigma > 0 and q_sigma > 0):
            raise ValueError(f"`rate_sigma` and `q_sigma` must be > 0, got {rate_sigma} and {q_sigma}.")
        self.num_states = num_states
        weight_V = _weights(num_states, q_sigma, num_states / 2)
        if weight_V.min() < _SMALLEST_WEIGHT:
            raise ValueError(f"`q_sigma` must be larger for {num_states} states, got {q_sigma}.")
        self.base_rate = _base_rate(num_states, rate_sigma, q_sigma)
        # reversible, hence similar to a symmetric matrix
        root_V = weight_V.sqrt()
        symmetric = self.base_rate * root_V[:, None] / root_V[None]
        self._eigenvalues, vectors = torch.linalg.eigh((symmetric + symmetric.T) / 2)
        self._left, self._right = vectors / root_V[:, None], vectors.T * root_V[None]
        self._published = _published_decomposition(self.base_rate)
        self._prior = _weights(num_states, q_sigma, num_states // 2)
        self._prior /= self._prior.sum()
        self.transition = functools.lru_cache(maxsize=64)(self._transition)
        self._published_transition = functools.lru_cache(maxsize=64)(self._compute_published_transition)

    def _transition(self, total: float) -> torch.Tensor:
        """`exp(total Q)`, `torch.DoubleTensor` of shape `(S, S)`."""
        law_VV = self._left @ torch.diag(torch.exp(total * self._eigenvalues)) @ self._right
        return law_VV.masked_fill(law_VV < _SMALLEST, 0.0)

    def _compute_published_transition(self, total: float) -> torch.Tensor:
        """`exp(total Q)` as rounded by the authors' operations in float32: `torch.DoubleTensor` of shape `(S, S)`."""
        if self._published is None:
            return self.transition(total)
        eigenvalues, left, right = self._published
        decay = torch.exp(torch.tensor(total, dtype=torch.float32) * eigenvalues)
        law_VV = left @ torch.diag(decay) @ right
        return law_VV.masked_fill(law_VV < _SMALLEST, 0.0).double()

    def prior(self) -> torch.Tensor:
        return self._prior

    def forward_law(self, x_R: torch.Tensor, total: float) -> torch.Tensor:
        return self.transition(total).to(x_R.device)[x_R]

    def score(
        self, prediction_RV: torch.Tensor, x_R: torch.Tensor, total: float, prediction_type: str
    ) -> torch.Tensor:
        if prediction_type == "log_score":
            return prediction_RV.scatter(1, x_R[:, None], 1.0)
        law_VV = self._published_transition(total).to(x_R.device)
        score_RV = _ratio(prediction_RV, x_R, law_VV) @ law_VV
        return score_RV.scatter(1, x_R[:, None], 1.0)

    def reverse_rates(self, score_RV: torch.Tensor, x_R: torch.Tensor) -> torch.Tensor:
        rates_RV = score_RV * self.base_rate.T.to(x_R.device)[x_R]
        return rates_RV.scatter(1, x_R[:, None], 0.0)

    def posterior(
        self, prediction_RV: torch.Tensor, x_R: torch.Tensor, total: float, total_next: float, prediction_type: str
    ) -> torch.Tensor:
        if prediction_type == "log_score":
            raise ValueError("`solver` 'tweedie' needs probabilities of the clean token under gaussian corruption.")
        ratio_RV = _ratio(prediction_RV, x_R, self.transition(total).to(x_R.device))
        earlier_RV = ratio_RV @ self.transition(total_next).to(x_R.device)
        return earlier_RV * self.transition(total - total_next).T.to(x_R.device)[x_R]


def _ratio(p_RV: torch.Tensor, x_R: torch.Tensor, law_VV: torch.Tensor) -> torch.Tensor:
    """`p(x0) / q(x | x0)`. `(R, V)`."""
    return p_RV / (law_VV.T[x_R] + _EPS)


def _weights(num_states: int, q_sigma: float, middle: float) -> torch.Tensor:
    """A Gaussian at the levels 1 to S, up to a factor: float64 of shape `(S,)`."""
    level_V = torch.arange(1, num_states + 1, dtype=torch.float64)
    return torch.exp(-((level_V - middle) ** 2) / (2 * q_sigma**2))


def _base_rate(num_states: int, rate_sigma: float, q_sigma: float) -> torch.Tensor:
    """R0, `(S, S)`: from each level towards levels that are not further from the middle, by distance; back by detailed
    balance under the stationary law.

    It equals the authors' to the last digit, because eigenvectors of nearly equal eigenvalues depend on that.
    """
    i, j = np.indices((num_states, num_states))
    low = (i < num_states // 2) & (j > i) & (j < num_states - i)
    high = (i > num_states // 2) & (j < i) & (j >= num_states - i)
    by_distance = np.exp(-(np.arange(num_states) ** 2) / rate_sigma**2)
    rate = np.where(low | high, by_distance[np.abs(j - i) - 1], 0.0)
    energy = (np.arange(1, num_states + 1) - num_states) * np.arange(1, num_states + 1)
    ratio = np.exp(-(energy[None] - energy[:, None]) / (2 * q_sigma**2))  # weight of j over weight of i
    rate = np.where(high.T | low.T, rate.T * ratio, rate)
    rate = np.where(high & (rate.T > 0), rate.T * ratio, rate)  # there and back again
    return torch.from_numpy(np.subtract(rate, np.diag(rate.sum(axis=1))))


def _published_decomposition(rate_VV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """Eigenvalues, eigenvectors as columns and their inverse, rounded to float32. None where `rate_VV` is so far from
    symmetric that this is no decomposition any more.
    """
    try:
        eigenvalues, vectors = np.linalg.eig(rate_VV.numpy())
        parts = (eigenvalues, vectors, np.linalg.inv(vectors))
    except np.linalg.LinAlgError:
        return None
    values, left, right = (torch.from_numpy(np.real(part)).float() for part in parts)
    is_sound = torch.allclose(left @ right, torch.eye(len(left)), rtol=0, atol=1e-3)
    return (values, left, right) if is_sound else None
