"""Fréchet distances, against their closed form; of resamples, those of the rows that were drawn, whatever the rank of
their covariance.
"""

import math

import numpy as np
import pytest
import torch

from lsd_sampler.evaluation.frechet import FrechetReference, frechet_distance, moments


def gaussian(num: int, dim: int, seed: int) -> torch.Tensor:
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + seed


def by_definition(x: torch.Tensor, y: torch.Tensor) -> float:
    linalg = pytest.importorskip("scipy.linalg")
    c, d = (np.cov(z.numpy(), rowvar=False) for z in (x, y))
    root = linalg.sqrtm(linalg.sqrtm(d).real @ c @ linalg.sqrtm(d).real).real
    return float((x.mean(0) - y.mean(0)).square().sum()) + np.trace(c + d - 2 * root)


def test_frechet_distance_of_gaussians() -> None:
    """By the closed form for covariances that commute: |m - n|^2 + sum (s_i - t_i)^2; exactly, as features are made to
    have these moments.
    """
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]

    def features(mean: list[float], deviations: list[float]) -> torch.Tensor:
        white = torch.randn(50, 3, generator=generator, dtype=torch.float64)
        white = torch.linalg.qr(white - white.mean(0))[0] * math.sqrt(49)
        return white * torch.tensor(deviations) @ basis.T + torch.tensor(mean)

    one, other = features([0.0, 1.0, 2.0], [1.0, 2.0, 3.0]), features([1.0, 1.0, 0.0], [1.0, 0.5, 5.0])
    assert frechet_distance(one, other) == pytest.approx(5 + 1.5**2 + 2**2, abs=1e-9)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="at least two samples"):
        frechet_distance(one[:1], other)
    with pytest.raises(ValueError, match="at least two samples"):
        frechet_distance(one, other[:1])


@pytest.mark.parametrize("num", [50, 4])
def test_a_resample_is_the_rows_that_were_drawn(num: int) -> None:
    """Also with fewer samples than features."""
    x, y = gaussian(num, 6, 1), gaussian(40, 6, 2)
    weights = torch.tensor([[0.0, 1.0], [2.0, 1.0], [3.0, 0.0], [1.0, 2.0]] + [[1.0, 1.0]] * (num - 4))
    found = FrechetReference(moments(y)).distances(x, weights)
    drawn = [x.repeat_interleave(w.long(), dim=0) for w in weights.T]
    assert found == pytest.approx([by_definition(rows, y) for rows in drawn], abs=1e-6)
    assert FrechetReference(moments(y)).distances(x) == pytest.approx([by_definition(x, y)], abs=1e-6)


def test_no_distance_from_itself_and_the_same_in_both_directions() -> None:
    x, y = gaussian(20, 3, 1), gaussian(30, 3, 2)
    assert FrechetReference(moments(x)).distances(x) == pytest.approx([0], abs=1e-9)
    assert FrechetReference(moments(x)).distances(y) == pytest.approx(FrechetReference(moments(y)).distances(x))


def test_one_sample_is_a_point_and_none_is_the_origin() -> None:
    y = gaussian(30, 3, 2)
    spread = float(torch.cov(y.T).trace())
    expected = [float((y[0] - y.mean(0)).square().sum()) + spread, float(y.mean(0).square().sum()) + spread]
    assert FrechetReference(moments(y)).distances(y[:1], torch.tensor([[1.0, 0.0]])) == pytest.approx(expected)
    assert FrechetReference(moments(y)).distances(y[:0]) == pytest.approx(expected[1:])


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="`features` must be of at least two samples"):
        moments(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="`features` must have width 3"):
        FrechetReference(moments(torch.zeros(2, 3))).distances(torch.zeros(2, 4))
