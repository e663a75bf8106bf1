"""The metric set of sets of sequences, against sums by hand and exact samples.

Random tests have fixed seeds; each states how often a right metric would fail with another one.
"""

import math

import pytest
import torch

from lsd_sampler import load_denoiser
from lsd_sampler.denoisers import Oracle, TableDenoiser, sudoku4
from lsd_sampler.evaluation import SetMetrics


PAIRS = TableDenoiser(torch.tensor([[0, 0], [0, 1], [1, 1]]), torch.tensor([2.0, 1.0, 1.0]))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_set_metrics_by_hand() -> None:
    samples = torch.tensor([[0, 0], [0, 0], [0, 0], [0, 1], [1, 0], [1, 0]])  # (1, 1) is missing, (1, 0) impossible
    row = SetMetrics(PAIRS).compute(samples)
    assert (row["valid_share"], row["invalid_share"]) == (pytest.approx(4 / 6), pytest.approx(2 / 6))
    assert row["distinct_valid"] == 2
    # expected of 4 possible samples: 2, 1, 1
    assert row["spread_ratio"] == pytest.approx((1 / 2 + 0 + 1) / 2) and row["spread_p_value"] is None
    # pairs of different samples that are equal: 3 + 1 of 15
    square = (4 + 1 + 1) / 16
    mean_p = (3 * 0.5 + 0.25) / 6
    assert row["sequence_l2"] == pytest.approx((4 / 15 - 2 * mean_p + square) / square)
    assert SetMetrics(PAIRS).verdict(samples) == row["sequence_l2"] and SetMetrics(PAIRS).verdict_key == "sequence_l2"


def test_exact_samples_pass_and_lost_variety_does_not() -> None:
    """288 grids, 2,048 samples: the distance of exact ones has a standard deviation of 0.012; 0.06 is five of them."""
    oracle, metrics = sudoku4(), SetMetrics(sudoku4())
    right = metrics.compute(oracle.sample(2048, generator()))
    assert right["valid_share"] == 1 and abs(right["sequence_l2"]) < 0.06
    assert right["spread_p_value"] > 1e-6 and abs(right["spread_ratio"] - 1) < 5 * math.sqrt(2 / 287)
    half = metrics.compute(oracle.sequences[:144][torch.randint(144, (2048,), generator=generator())])
    assert half["valid_share"] == 1 and half["distinct_valid"] == 144
    assert half["sequence_l2"] == pytest.approx(1, abs=0.1) and half["spread_p_value"] < 1e-9
    # a fifth of the samples impossible, and hardly ever equal: 0.2^2
    samples = oracle.sample(2048, generator())
    samples[:410] = torch.randint(4, (410, 16), generator=generator())
    assert metrics.compute(samples)["sequence_l2"] == pytest.approx((410 / 2048) ** 2, abs=0.06)


@pytest.mark.parametrize("num", [2, 3])
def test_few_samples_are_enough(num: int) -> None:
    row = SetMetrics(PAIRS).compute(PAIRS.sample(num, generator()))
    assert all(math.isfinite(value) for value in row["sequence_l2_replicates"])


def test_large_sets_and_beginnings_are_judged_by_validity() -> None:
    oracle = load_denoiser("brackets:L=24")
    assert isinstance(oracle, Oracle)
    for metrics in (SetMetrics(oracle), SetMetrics(sudoku4(), length=8)):
        assert metrics.verdict_key == "invalid_share"
        samples = metrics.oracle.sample(16, generator())[:, :8]
        row = metrics.compute(samples)
        assert row["invalid_share"] == 0 == metrics.verdict(samples) and "spread_ratio" not in row
        assert set(row) == set(metrics.keys)
    with pytest.raises(ValueError, match="mask"):
        SetMetrics(sudoku4()).compute(torch.full((2, 16), 4))


def test_another_law_has_another_fingerprint() -> None:
    others = [
        SetMetrics(PAIRS),
        SetMetrics(sudoku4()),
        SetMetrics(sudoku4(), group=2),
        SetMetrics(sudoku4(), length=8),
    ]
    assert len({metrics.fingerprint for metrics in others}) == 4
    assert SetMetrics(sudoku4()).fingerprint == SetMetrics(sudoku4()).fingerprint
