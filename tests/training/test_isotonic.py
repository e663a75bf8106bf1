"""Isotonic regression by hand."""

import torch

from lsd_sampler.training.isotonic import isotonic_decreasing


def test_isotonic_is_the_weighted_projection() -> None:
    values = torch.tensor([3.0, 1.0, 2.0, 2.5, 0.0, 0.5], dtype=torch.float64)
    weights = torch.tensor([1.0, 1.0, 3.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    fitted = isotonic_decreasing(values, weights)
    pooled = (1.0 * 1 + 2.0 * 3 + 2.5 * 2) / 6
    torch.testing.assert_close(fitted, torch.tensor([3.0, pooled, pooled, pooled, 0.25, 0.25], dtype=torch.float64))
