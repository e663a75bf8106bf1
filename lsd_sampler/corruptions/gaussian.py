import functools

import torch

from .base import Corruption


_SMALLEST = 1e-8  # transition probabilities below this are 0, and this is added to denominators, as in tauLDR
_EPS = 1e-9


class Gaussian(Corruption):
    """Tokens are levels on a scale and move mostly to near ones; the stationary law is a discretised Gaussian (tauLDR,
    https://huggingface.co/papers/2205.14987, appendix). There is no mask.

    Args:
        num_states (`int`): S, number of levels.
        rate_sigma (`float`): scale of a move.
        q_sigma (`float`): scale of the stationary law.

    Raises:
        ValueError: if a scale is not positive.
    """

    name = "gaussian"

    def __init__(self, num_states: int, rate_sigma: float, q_sigma: float):
        if not (rate_sigma > 0 and q_sigma > 0):
            raise ValueError(f"`rate_sigma` and `q_sigma` must be > 0, got {rate_sigma} and {q_sigma}.")
        self.num_states = num_states
        self.base_rate = _base_rate(num_states, rate_sigma, q_sigma)
        # reversible, hence similar to a symmetric matrix
        root_V = self.prior_weights(num_states, q_sigma).sqrt()
        symmetric = self.base_rate * root_V[:, None] / root_V[None]
        self._eigenvalues, vectors = torch.linalg.eigh((symmetric + symmetric.T) / 2)
        self._left, self._right = vectors / root_V[:, None], vectors.T * root_V[None]
        self._prior = root_V.square() / root_V.square().sum()
        self.transition = functools.lru_cache(maxsize=64)(self._transition)

    @staticmethod
    def prior_weights(num_states: int, q_sigma: float) -> torch.Tensor:
        """Law of a token at `t = 1`, up to a factor: float64 of shape `(num_states,)`."""
        level_V = torch.arange(1, num_states + 1, dtype=torch.float64)
        return torch.exp(-((level_V - num_states // 2) ** 2) / (2 * q_sigma**2))

    def _transition(self, total: float) -> torch.Tensor:
        """`exp(total Q)`, `torch.DoubleTensor` of shape `(S, S)`."""
        law_VV = self._left @ torch.diag(torch.exp(total * self._eigenvalues)) @ self._right
        return law_VV.masked_fill(law_VV < _SMALLEST, 0.0)

    def prior(self) -> torch.Tensor:
        return self._prior

    def forward_law(self, x_R: torch.Tensor, total: float) -> torch.Tensor:
        return self.transition(total).to(x_R.device)[x_R]

    def score(
        self, prediction_RV: torch.Tensor, x_R: torch.Tensor, total: float, prediction_type: str
    ) -> torch.Tensor:
        if prediction_type == "log_score":
            return prediction_RV.scatter(1, x_R[:, None], 1.0)
        score_RV = self._ratio(prediction_RV, x_R, total) @ self.transition(total).to(x_R.device)
        return score_RV.scatter(1, x_R[:, None], 1.0)

    def reverse_rates(self, score_RV: torch.Tensor, x_R: torch.Tensor) -> torch.Tensor:
        rates_RV = score_RV * self.base_rate.T.to(x_R.device)[x_R]
        return rates_RV.scatter(1, x_R[:, None], 0.0)

    def posterior(
        self, prediction_RV: torch.Tensor, x_R: torch.Tensor, total: float, total_next: float, prediction_type: str
    ) -> torch.Tensor:
        if prediction_type == "log_score":
            raise ValueError("`solver` 'tweedie' needs probabilities of the clean token under gaussian corruption.")
        earlier_RV = self._ratio(prediction_RV, x_R, total) @ self.transition(total_next).to(x_R.device)
        return earlier_RV * self.transition(total - total_next).T.to(x_R.device)[x_R]

    def _ratio(self, p_RV: torch.Tensor, x_R: torch.Tensor, total: float) -> torch.Tensor:
        """`p(x0) / q(x | x0)`. `(R, V)`."""
        return p_RV / (self.transition(total).T.to(x_R.device)[x_R] + _EPS)


def _base_rate(num_states: int, rate_sigma: float, q_sigma: float) -> torch.Tensor:
    """R0, `(S, S)`: from each level towards levels that are not further from the middle, by distance; back by detailed
    balance.
    """
    weight_V = Gaussian.prior_weights(num_states, q_sigma)
    i, j = torch.meshgrid(torch.arange(num_states), torch.arange(num_states), indexing="ij")
    low, high = i < num_states // 2, i > num_states // 2
    towards = (low & (j > i) & (j < num_states - i)) | (high & (j < i) & (j >= num_states - i))
    rate = torch.exp(-(((j - i).abs().double() - 1) ** 2) / rate_sigma**2) * towards
    back = rate.T * weight_V[None] / weight_V[:, None]
    rate = torch.where(towards, rate, torch.where(towards.T, back, 0.0))
    return rate - torch.diag(rate.sum(1))
