"""The Fréchet distance of features, against its closed form."""

import math

import pytest
import torch

from lsd_sampler.evaluation.image_classifier import frechet_distance


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
    with pytest.raises(ValueError, match="at least two images"):
        frechet_distance(one[:1], other)
