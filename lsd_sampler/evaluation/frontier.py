"""The frontier: likelihood against entropy along a sweep of temperatures, and samplers read off at one entropy.

A likelihood can be bought with entropy, so two samplers are compared at the same entropy (arXiv 2604.02718). That is
necessary but not sufficient: incoherent samples have high entropy, and a low temperature then makes them look good.
The verdict is a distance between distributions; see `verdict`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .bootstrap import centred
from .rows import Row


# A replicate that does not reach the entropy has no likelihood there. There is no interval where more than this share
# of the replicates do not reach it.
_LOST = 0.025


@dataclass(frozen=True)
class Reading:
    """The likelihood of a sampler at a given entropy, read off its sweep.

    Attributes:
        sampler, nfe: which.
        entropy: where, in nats.
        likelihood, low, high: negative log-likelihood there in nats, and its bootstrap interval; None where the sweep
            does not reach that entropy, or not surely enough for an interval.
        temperature: the temperature there, interpolated.
        note: why a value is missing.
    """

    sampler: str
    nfe: int
    entropy: float
    likelihood: float | None = None
    low: float | None = None
    high: float | None = None
    temperature: float | None = None
    note: str = ""


def read_frontier(
    rows: Sequence[Row], entropy: float, *, entropy_key: str, likelihood_key: str, confidence: float = 0.95
) -> list[Reading]:
    """Reads every sampler and number of steps off at one entropy, by linear interpolation along its sweep.

    Beyond the sweep nothing is extrapolated: the reading says how far it reaches.

    Args:
        rows: a sweep with all metrics, at two temperatures at least.
        entropy (`float`): that of real data of the same size, or of the teacher, in nats.
        entropy_key, likelihood_key: which columns; rows hold their replicates as `KEY_replicates`.
        confidence (`float`): of the intervals.
    """
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["sampler"], row["nfe"]), []).append(row)
    readings = []
    for (sampler, nfe), group in groups.items():
        group = sorted(group, key=lambda row: row["temperature"])
        curve = [_column(group, entropy_key), _column(group, likelihood_key), _column(group, "temperature")]
        readings.append(
            Reading(sampler, nfe, entropy, **_read(group, curve, entropy, entropy_key, likelihood_key, confidence))
        )
    return readings


def crossing(x: np.ndarray, target: float) -> tuple[int, float] | None:
    """The first segment of a curve that crosses a level, and how far along it (in [0, 1]); None where none does."""
    for i, (left, right) in enumerate(zip(x[:-1], x[1:], strict=True)):
        if min(left, right) <= target <= max(left, right):
            return i, 0.0 if left == right else float((target - left) / (right - left))
    return None


def _read(
    group: Sequence[Row],
    curve: Sequence[np.ndarray],
    target: float,
    entropy_key: str,
    likelihood_key: str,
    confidence: float,
) -> dict[str, Any]:
    entropies, likelihoods, temperatures = curve
    where = crossing(entropies, target)
    if where is None:
        reach = f"{entropies.min():.3f} to {entropies.max():.3f}"
        return {"note": f"out of range: {reach} nats"}
    values: dict[str, Any] = {
        "likelihood": _at(likelihoods, where),
        "temperature": _at(temperatures, where),
    }
    replicates = _replicates(group, (entropy_key, likelihood_key))
    found = [crossing(entropy, target) for entropy in replicates[entropy_key]]
    reached = [
        _at(likelihood, place)
        for likelihood, place in zip(replicates[likelihood_key], found, strict=True)
        if place is not None
    ]
    if len(reached) < (1 - _LOST) * len(found):
        return values | {"note": "at the edge of the sweep: no interval"}
    tail = (1 - confidence) / 2
    low, high = np.quantile(reached, [tail, 1 - tail])
    return values | {"low": float(low), "high": float(high)}


def _at(values: np.ndarray, where: tuple[int, float]) -> float:
    i, share = where
    return float((1 - share) * values[i] + share * values[i + 1])


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    return np.array([row[key] for row in rows], dtype=float)


def _replicates(group: Sequence[Row], keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Centred replicates of each column, of shape `(num_resamples, num_temperatures)`."""
    return {
        key: np.stack([centred(row[key], np.array(row[f"{key}_replicates"], dtype=float)) for row in group], axis=1)
        for key in keys
    }
