"""Energy distance and MAUVE: laws with known values."""

import math
import sys

import numpy as np
import pytest
import torch

from lsd_sampler.denoisers.markov import countdown
from lsd_sampler.evaluation import (
    bootstrap_weights,
    denoiser_features,
    energy_distance,
    energy_replicates,
    mauve_score,
)


def normal(num: int, dim: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- energy distance ----


def test_energy_distance_by_hand() -> None:
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0], [6.0]])
    between = (1 + 5 + 6 + 1 + 3 + 4) / 6
    assert energy_distance(x, y) == pytest.approx(2 * between - 2 - (4 + 5 + 1) / 3)


@pytest.mark.parametrize("shift", [0.5, 3.0])
def test_energy_distance_of_gaussians(shift: float) -> None:
    """For N(0, 1) and N(m, 1), X - Y is N(-m, 2): E|X - Y| is a folded normal's mean, E|X - X'| is 2 / sqrt(pi)."""
    folded = 2 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4) + shift * math.erf(shift / 2)
    exact = 2 * folded - 4 / math.sqrt(math.pi)
    # the estimate's standard error is below 0.05 at these sizes, found by repetition: 4 of them
    assert energy_distance(normal(1500), normal(1500, seed=1) + shift) == pytest.approx(exact, abs=0.2 * exact**0.5)


def test_energy_distance_is_unbiased_where_the_laws_are_equal() -> None:
    values = np.array([energy_distance(normal(20, 3, 2 * i), normal(20, 3, 2 * i + 1)) for i in range(200)])
    # a plug-in estimate would be 2 E|X - X'| / 20 = 0.23 on average; false alarm of 4 standard errors: 6e-5
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(200) < 0.1
    assert values.min() < 0


def test_energy_distance_moves_with_the_space() -> None:
    x, y = normal(30, 4), normal(40, 4, 1) + 1
    rotation = torch.linalg.qr(normal(4, 4, 2)).Q
    value = energy_distance(x, y)
    assert energy_distance(y, x) == pytest.approx(value)
    assert energy_distance(x @ rotation + 5, y @ rotation + 5) == pytest.approx(value)
    assert energy_distance(3 * x, 3 * y) == pytest.approx(3 * value)


def test_replicates_equal_a_recount() -> None:
    """A row drawn twice lies at distance 0 from itself."""
    x, y, weights = normal(12, 2), normal(9, 2, 1), bootstrap_weights(12, 5)
    for column, replicate in zip(weights.T.long(), energy_replicates(x, y, weights), strict=True):
        assert replicate == pytest.approx(energy_distance(x.repeat_interleave(column, dim=0), y))


def test_bootstrap_spread_of_the_energy_distance_is_the_true_spread() -> None:
    reference = normal(100, 2, 999) + 1
    true = np.std([energy_distance(normal(100, 2, seed), reference) for seed in range(60)])
    estimates = [energy_replicates(normal(100, 2, s), reference, bootstrap_weights(100, 100)).std() for s in range(5)]
    assert 0.7 < float(np.mean(estimates) / true) < 1.4


@pytest.mark.parametrize("y", [torch.zeros(1, 2), torch.zeros(5, 3), torch.zeros(5)])
def test_features_that_do_not_fit_are_refused(y: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="`x` and `y`"):
        energy_distance(torch.zeros(5, 2), y)


def test_a_denoiser_without_hidden_states_has_no_features() -> None:
    with pytest.raises(ValueError, match="MarkovDenoiser"):
        denoiser_features(countdown(4, length=8))


# ---- MAUVE ----


def test_mauve_of_equal_and_of_different_laws() -> None:
    pytest.importorskip("mauve")
    x, same, other = normal(300, 3), normal(300, 3, 1), normal(300, 3, 2) + 4
    assert mauve_score(x, other) < 0.1 < 0.8 < mauve_score(x, same) <= 1
    assert mauve_score(x, same) == mauve_score(x, same)


def test_mauve_asks_for_its_package_and_for_equal_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="equally many"):
        mauve_score(normal(3), normal(4))
    monkeypatch.setitem(sys.modules, "mauve", None)
    with pytest.raises(ImportError, match=r"pip install lsd_sampler\[mauve\]"):
        mauve_score(normal(3), normal(3))
