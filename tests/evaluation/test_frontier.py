"""The frontier: curves are read off at one entropy, and nothing is extrapolated."""

import math
from typing import Any

import numpy as np
import pytest

from lsd_sampler.evaluation import read_frontier


def sweep_row(temperature: float, entropy: float, nll: float, spread: float = 0.0) -> dict[str, Any]:
    noise = np.random.default_rng(round(100 * temperature)).normal(size=500)
    return {
        "sampler": "a", "nfe": 8, "temperature": temperature, "entropy": entropy, "nll": nll,
        "entropy_replicates": [entropy] * 500, "nll_replicates": list(nll + 7 + spread * noise),
    }  # fmt: skip


def read(rows: list[dict[str, Any]], entropy: float) -> Any:
    (reading,) = read_frontier(rows, entropy, entropy_key="entropy", likelihood_key="nll")
    return reading


def test_a_sampler_is_read_off_by_linear_interpolation() -> None:
    rows = [sweep_row(1.2, 6.0, 5.0), sweep_row(0.8, 4.0, 2.0), sweep_row(1.0, 5.0, 3.0)]
    reading = read(rows, 5.25)
    assert (reading.likelihood, reading.temperature) == pytest.approx((3.5, 1.05))
    assert reading.low == pytest.approx(3.5) and reading.high == pytest.approx(3.5)
    assert read(rows, 4.0).likelihood == 2.0 and read(rows, 6.0).likelihood == 5.0


def test_beyond_the_sweep_it_says_so_and_extrapolates_nothing() -> None:
    rows = [sweep_row(0.8, 4.0, 2.0), sweep_row(1.0, 5.0, 3.0)]
    for entropy in (3.9, 5.1):
        reading = read(rows, entropy)
        assert reading.likelihood is None and reading.low is None and reading.temperature is None
        assert reading.note == "out of range: 4.000 to 5.000 nats"


def test_at_the_edge_there_is_a_value_without_an_interval() -> None:
    rows = [sweep_row(0.8, 4.0, 2.0), sweep_row(1.0, 5.0, 3.0)]
    rows[1]["entropy_replicates"] = list(5.0 + np.random.default_rng(0).normal(size=500))
    reading = read(rows, 4.99)
    assert reading.likelihood == pytest.approx(2.99) and reading.low is None
    assert "no interval" in reading.note


def test_intervals_come_from_centred_replicates() -> None:
    """Half of either end: the standard error is sqrt(1/2) of theirs. Quantiles of 500 are within 15 % (4 sigma)."""
    reading = read([sweep_row(0.8, 4.0, 2.0, 0.1), sweep_row(1.0, 5.0, 3.0, 0.1)], 4.5)
    assert reading.likelihood == pytest.approx(2.5)
    assert reading.high - reading.low == pytest.approx(2 * 1.96 * 0.1 * math.sqrt(0.5), rel=0.15)
    assert reading.low < 2.5 < reading.high
