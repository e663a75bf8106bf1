"""Noise schedules, for scalars and tensors, in float64.

Direction of time: `t = 1` is noise, `t = 0` is data. `total(t)` is the total noise (sigma-bar in the papers),
`rate(t)` its derivative, `alpha(t) = exp(-total(t))` the probability that a token is still unmasked (absorbing noise).
"""

import inspect
import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from ..support.registry import Registry
from ..support.validation import check_number


def _float64(t: float | torch.Tensor) -> torch.Tensor:
    # a tensor stays on its device, whatever the default device
    return t.double() if isinstance(t, torch.Tensor) else torch.tensor(t, dtype=torch.float64)


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
        _check_eps(eps)
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
        _check_sigmas(sigma_min, sigma_max)
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def total(self, t: float | torch.Tensor) -> torch.Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** _float64(t)

    def rate(self, t: float | torch.Tensor) -> torch.Tensor:
        return self.total(t) * math.log(self.sigma_max / self.sigma_min)

    def inverse_alpha(self, alpha: float | torch.Tensor) -> torch.Tensor:
        return torch.log(-torch.log(_float64(alpha)) / self.sigma_min) / math.log(self.sigma_max / self.sigma_min)


class Linear(NoiseSchedule):
    """`total(t) = sigma_min + t (sigma_max - sigma_min)` (MDLM). Not zero at t = 0."""

    name = "linear"

    def __init__(self, sigma_min: float = 1e-3, sigma_max: float = 7.0):
        _check_sigmas(sigma_min, sigma_max)
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def total(self, t: float | torch.Tensor) -> torch.Tensor:
        return self.sigma_min + _float64(t) * (self.sigma_max - self.sigma_min)

    def rate(self, t: float | torch.Tensor) -> torch.Tensor:
        return torch.full_like(_float64(t), self.sigma_max - self.sigma_min)

    def inverse_alpha(self, alpha: float | torch.Tensor) -> torch.Tensor:
        return (-torch.log(_float64(alpha)) - self.sigma_min) / (self.sigma_max - self.sigma_min)


class Cosine(NoiseSchedule):
    """`alpha(t) = eps + (1 - eps) cos(pi t / 2)^power`, with power 1 or 2 (MDLM: cosine, cosinesqr)."""

    name = "cosine"
    power = 1

    def __init__(self, eps: float = 1e-3):
        _check_eps(eps)
        self.eps = eps

    def _share(self, t: float | torch.Tensor) -> torch.Tensor:
        return torch.cos(_float64(t) * (math.pi / 2)) ** self.power

    def total(self, t: float | torch.Tensor) -> torch.Tensor:
        return -torch.log(self.eps + (1 - self.eps) * self._share(t))

    def rate(self, t: float | torch.Tensor) -> torch.Tensor:
        angle = _float64(t) * (math.pi / 2)
        slope = math.pi / 2 * self.power * torch.cos(angle) ** (self.power - 1) * torch.sin(angle)
        return (1 - self.eps) * slope / (self.eps + (1 - self.eps) * self._share(t))

    def inverse_alpha(self, alpha: float | torch.Tensor) -> torch.Tensor:
        share = ((_float64(alpha) - self.eps) / (1 - self.eps)).clamp(0, 1)
        return torch.acos(share ** (1 / self.power)) / (math.pi / 2)


class CosineSquared(Cosine):
    """`alpha(t) = eps + (1 - eps) cos(pi t / 2)^2` (MDLM)."""

    name = "cosine_squared"
    power = 2


class OffsetCosine(Cosine):
    """As `Cosine`, of `(t + 0.008) / 1.008` in place of t, and relative to its value at 0: steeper near `t = 0`
    (multinomial diffusion, https://huggingface.co/papers/2102.05379).
    """

    name = "cosine_offset"
    offset = 0.008

    def _angle(self, t: float | torch.Tensor) -> torch.Tensor:
        return (_float64(t) + self.offset) / (1 + self.offset) * (math.pi / 2)

    def _share(self, t: float | torch.Tensor) -> torch.Tensor:
        return (torch.cos(self._angle(t)) / torch.cos(self._angle(0.0))) ** self.power

    def rate(self, t: float | torch.Tensor) -> torch.Tensor:
        share = self._share(t)
        slope = self.power * share * torch.tan(self._angle(t)) * (math.pi / 2) / (1 + self.offset)
        return (1 - self.eps) * slope / (self.eps + (1 - self.eps) * share)

    def inverse_alpha(self, alpha: float | torch.Tensor) -> torch.Tensor:
        share = ((_float64(alpha) - self.eps) / (1 - self.eps)).clamp(0, 1)
        angle = torch.acos(share ** (1 / self.power) * torch.cos(self._angle(0.0)))
        return angle / (math.pi / 2) * (1 + self.offset) - self.offset


class OffsetCosineSquared(OffsetCosine):
    """The same with `CosineSquared` (https://huggingface.co/papers/2302.05737)."""

    name = "cosine_squared_offset"
    power = 2


class Exponential(NoiseSchedule):
    """`total(t) = time_base (time_exponential^t - 1)` (tauLDR, https://huggingface.co/papers/2205.14987).

    The total is rounded as in the authors' code, to multiples of float32's spacing at `time_base`, because their
    reverse rates divide by transition probabilities so small that they depend on the last digits.
    """

    name = "exponential"

    def __init__(self, time_base: float = 3.0, time_exponential: float = 100.0):
        if not (time_base > 0 and time_exponential > 1):
            raise ValueError(
                f"`time_base` must be > 0 and `time_exponential` > 1, got {time_base} and {time_exponential}."
            )
        self.time_base, self.time_exponential = time_base, time_exponential

    def total(self, t: float | torch.Tensor) -> torch.Tensor:
        return (self.time_base * self.time_exponential ** _float64(t).float() - self.time_base).double()

    def rate(self, t: float | torch.Tensor) -> torch.Tensor:
        return self.time_base * math.log(self.time_exponential) * self.time_exponential ** _float64(t)

    def inverse_alpha(self, alpha: float | torch.Tensor) -> torch.Tensor:
        return torch.log1p(-torch.log(_float64(alpha)) / self.time_base) / math.log(self.time_exponential)


def _check_eps(eps: float) -> None:
    if not 0 < eps < 1:
        raise ValueError(f"`noise_eps` must be in (0, 1), got {eps}.")


def _check_sigmas(sigma_min: float, sigma_max: float) -> None:
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"`sigma_min` and `sigma_max` must satisfy 0 < min < max, got {sigma_min}, {sigma_max}.")


def make_noise_schedule(
    name: str,
    *,
    noise_eps: float = 1e-3,
    sigma_min: float = 1e-4,
    sigma_max: float = 20.0,
    time_base: float = 3.0,
    time_exponential: float = 100.0,
) -> NoiseSchedule:
    """Builds the noise schedule of that name, with the constants that it uses.

    Raises:
        ValueError: for an unknown name, or constants out of range.
    """
    kind = NOISE_SCHEDULES[name]
    constants = {
        "eps": noise_eps, "sigma_min": sigma_min, "sigma_max": sigma_max, "time_base": time_base,
        "time_exponential": time_exponential,
    }  # fmt: skip
    for key, value in constants.items():
        check_number("noise_eps" if key == "eps" else key, value)
    return kind(**{key: constants[key] for key in inspect.signature(kind).parameters})


NOISE_SCHEDULES: Registry[type[NoiseSchedule]] = Registry("noise_schedule")
for _kind in (LogLinear, Geometric, Linear, Cosine, CosineSquared, OffsetCosine, OffsetCosineSquared, Exponential):
    NOISE_SCHEDULES.register(_kind.name, _kind)
