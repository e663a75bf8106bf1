"""How samples are spread over a set, and their distance from its law: against sums by hand and another library.

Random tests have fixed seeds; each states how often a right metric would fail with another one.
"""

import itertools

import pytest
import torch
from scipy.stats import chisquare

from lsd_sampler.denoisers import TableDenoiser
from lsd_sampler.evaluation import bootstrap_weights, sequence_l2, spread


PAIRS = TableDenoiser(torch.tensor([[0, 0], [0, 1], [1, 1]]), torch.tensor([2.0, 1.0, 1.0]))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_spread_is_pearsons_chi_square() -> None:
    samples = PAIRS.sample(400, generator())
    found = spread(samples, PAIRS.log_prob(samples), 3)
    observed = (samples @ torch.tensor([1, 2])).bincount(minlength=4)[[0, 2, 3]]
    expected = chisquare(observed.numpy(), [200, 100, 100])
    assert found is not None and found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.ratio == pytest.approx(expected.statistic / 2)
    assert spread(torch.tensor([[1, 0]]), PAIRS.log_prob(torch.tensor([[1, 0]])), 3) is None


def test_the_distance_has_no_bias() -> None:
    """The mean over 400 sets of 20 samples, from a law that is not the true one; wrong once in a million."""
    q = torch.tensor([0.25, 0.25, 0.25, 0.25], dtype=torch.float64)
    sequences = torch.tensor(list(itertools.product(range(2), repeat=2)))
    p = PAIRS.log_prob(sequences).exp()
    exact = float((q - p).square().sum() / p.square().sum())
    g, values = generator(), []
    for _ in range(400):
        samples = sequences[torch.multinomial(q, 20, replacement=True, generator=g)]
        values.append(float(sequence_l2(samples, PAIRS.log_prob(samples), float(p.square().sum()))))
    found = torch.tensor(values)
    assert abs(found.mean() - exact) < 4.9 * found.std() / 20


def test_its_resamples_are_weighted_pairs() -> None:
    samples, weights = PAIRS.sample(12, generator()), bootstrap_weights(12, 3)
    log_p, square = PAIRS.log_prob(samples), float(PAIRS.collision_probability or 0)
    for found, w in zip(sequence_l2(samples, log_p, square, weights), weights.T.double(), strict=True):
        pairs = torch.outer(w, w).fill_diagonal_(0)
        equal = (samples[:, None] == samples).all(-1)
        expected = (pairs * equal).sum() / pairs.sum() - 2 * (w * log_p.exp()).sum() / w.sum() + square
        assert float(found) == pytest.approx(float(expected) / square)
