"""Noise schedules of the absorbing (masking) process, for scalars and tensors, in float64.

Direction of time: `t = 1` is all masked, `t = 0` is data. `total(t)` is the total noise (sigma-bar in the papers),
`rate(t)` its derivative, `alpha(t) = exp(-total(t))` the probability that a token is still unmasked.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch

from .registry import Registry


def _float64(t: float | torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(t, dtype=torch.float64)


class NoiseSchedule(ABC):
    """A noise schedule. `t` is a float or a tensor of times in [0, 1]; results are float64 tensors of its shape."""

    name: ClassVar[str]

    @abstractmethod
    def total(self, t: float | torch.Tensor) -> torch.Tensor:
        """Total noise sigma-bar(t)."""

    @abstractmethod
    def rate(self, t: float | torch.Tensor) -> torch.Tensor:
        """Derivative of the total noise, sigma(t)."""

    @abstractmethod
    def inverse_alpha(self, alpha: float | torch.Tensor) -> torch.Tensor:
        """The time at which a token is still unmasked with probability `alpha`."""

    def alpha(self, t: float | torch.Tensor) -> torch.Tensor:
        """Probability that a token is unmasked at time t."""
        return torch.exp(-self.total(t))

    def masked(self, t: float | torch.Tensor) -> torch.Tensor:
        """`1 - alpha(t)`, without cancellation near t = 0."""
        return -torch.expm1(-self.total(t))


class LogLinear(NoiseSchedule):
    """`alpha(t) = 1 - (1 - eps) t` (SEDD, RADD, MDLM)."""

    name = "log_linear"

    def __init__(self, eps: float = 1e-3):
        if not 0 < eps < 1:
            raise ValueError(f"`noise_eps` must be in (0, 1), got {eps}.")
        self.eps = eps

    def total(self, t: float | torch.Tensor) -> torch.Tensor:
        return -torch.log1p(-(1 - self.eps) * _float64(t))

    def rate(self, t: float | torch.Tensor) -> torch.Tensor:
        return (1 - self.eps) / (1 - (1 - self.eps) * _float64(t))

    def inverse_alpha(self, alpha: float | torch.Tensor) -> torch.Tensor:
        return (1 - _float64(alpha)) / (1 - self.eps)


class Geometric(NoiseSchedule):
    """`total(t) = sigma_min^(1 - t) sigma_max^t` (SEDD). Not zero at t = 0."""

    name = "geometric"

    def __init__(self, sigma_min: float = 1e-4, sigma_max: float = 20.0):
        if not 0 < sigma_min < sigma_max:
            raise ValueError(f"`sigma_min` and `sigma_max` must satisfy 0 < min < max, got {sigma_min}, {sigma_max}.")
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def total(self, t: float | torch.Tensor) -> torch.Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** _float64(t)

    def rate(self, t: float | torch.Tensor) -> torch.Tensor:
        return self.total(t) * math.log(self.sigma_max / self.sigma_min)

    def inverse_alpha(self, alpha: float | torch.Tensor) -> torch.Tensor:
        return torch.log(-torch.log(_float64(alpha)) / self.sigma_min) / math.log(self.sigma_max / self.sigma_min)


def make_noise_schedule(
    name: str, *, noise_eps: float = 1e-3, sigma_min: float = 1e-4, sigma_max: float = 20.0
) -> NoiseSchedule:
    """Builds the noise schedule of that name.

    Raises:
        ValueError: for an unknown name, or constants out of range.
    """
    return NOISE_SCHEDULES[name](noise_eps=noise_eps, sigma_min=sigma_min, sigma_max=sigma_max)


NOISE_SCHEDULES: Registry[Callable[..., NoiseSchedule]] = Registry("noise_schedule")
NOISE_SCHEDULES.register(LogLinear.name, lambda noise_eps, **_: LogLinear(noise_eps))
NOISE_SCHEDULES.register(Geometric.name, lambda sigma_min, sigma_max, **_: Geometric(sigma_min, sigma_max))
