"""Bootstrap of whole samples: how far an estimate moves when the samples are drawn again."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch


RESAMPLES_AT_ONCE = 50  # bounds the memory of a bootstrap to a few tens of MB


@dataclass(frozen=True)
class Interval:
    """An estimate and its bootstrap interval, in the unit of the estimate."""

    value: float
    low: float
    high: float


def bootstrap_weights(num_samples: int, num_resamples: int = 200, seed: int = 0) -> torch.Tensor:
    """How often each sample is drawn in each resample (whole samples, with replacement).

    Returns:
        `torch.FloatTensor` of shape `(num_samples, num_resamples)` whose columns sum to `num_samples`.

    Raises:
        ValueError: if `num_samples` or `num_resamples` is below 1.
    """
    if num_samples < 1 or num_resamples < 1:
        raise ValueError(f"`num_samples` and `num_resamples` must be at least 1, got {num_samples}, {num_resamples}.")
    law = np.full(num_samples, 1 / num_samples)
    draws = np.random.default_rng(seed).multinomial(num_samples, law, size=num_resamples)
    return torch.from_numpy(draws.T.astype(np.float32))


def grouped_weights(num_samples: int, group: int, num_resamples: int = 200, seed: int = 0) -> torch.Tensor:
    """`bootstrap_weights` for groups of consecutive samples that are not independent; the last may be smaller."""
    weights = bootstrap_weights(-(-num_samples // group), num_resamples, seed)
    return weights.repeat_interleave(group, dim=0)[:num_samples]


def centred(value: float, replicates: np.ndarray) -> np.ndarray:
    """`value + (replicates - their mean)`.

    A resample holds fewer distinct samples than the original, so plug-in divergences of resamples are all too large
    and the usual percentile interval can lie wholly above the estimate. Only their spread is used.
    """
    return value + replicates - np.mean(replicates)


def centred_interval(
    value: float, replicates: np.ndarray, confidence: float = 0.95, minimum: float | None = None
) -> Interval:
    """The interval between quantiles of the `centred` replicates.

    Raises:
        ValueError: if `confidence` is not in (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be in (0, 1), got {confidence}.")
    tail = (1 - confidence) / 2
    low, high = np.quantile(centred(value, replicates), [tail, 1 - tail])
    return Interval(value, float(low) if minimum is None else max(float(low), minimum), float(high))


def with_interval(
    key: str, value: float, replicates: np.ndarray, confidence: float = 0.95, minimum: float | None = 0.0
) -> dict[str, float]:
    """A metric and the ends of its `centred_interval`, as a row holds them: under `KEY`, `KEY_low` and `KEY_high`."""
    interval = centred_interval(value, replicates, confidence, minimum)
    return {key: interval.value, f"{key}_low": interval.low, f"{key}_high": interval.high}


def kept_replicates(replicates: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """Replicates of each metric as a row holds them, to six digits: under `KEY_replicates`."""
    return {f"{key}_replicates": [float(f"{value:.6g}") for value in values] for key, values in replicates.items()}
