"""Exact metrics of Markov chains, against sums by hand."""

import math

import pytest
import torch

from lsd_sampler.denoisers import second_order_chain
from lsd_sampler.denoisers.markov import MarkovDenoiser, countdown
from lsd_sampler.evaluation import (
    PROBABILITY_FLOOR,
    OracleMetrics,
    bigram_tv,
    bootstrap_weights,
    forbidden_samples,
    forbidden_share,
    kl_rate_at_distance,
    oracle_statistics,
    reverse_kl_per_transition,
)


def test_statistics_by_hand() -> None:
    transition = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]], dtype=torch.float64)
    samples = torch.tensor([[0, 1, 2, 0, 2], [1, 1, 2, 0, 0]])  # transitions 01 12 20 02 and 11 12 20 00
    assert forbidden_share(samples, transition) == 1 / 8
    assert forbidden_samples(samples, transition) == 1 / 2
    cross = -(5 * math.log(0.5) + math.log(PROBABILITY_FLOOR)) / 8
    own = (
        3 * math.log(3) + 3 * (math.log(3) - 2 / 3 * math.log(2))
    ) / 8  # from 0: 01 02 00; from 1: 12 12 11; from 2: 20 20
    assert reverse_kl_per_transition(samples, transition) == pytest.approx(cross - own, abs=1e-12)
    # the stationary law is (2/5, 2/5, 1/5)
    joint = torch.tensor([[1, 1, 1], [0, 1, 2], [2, 0, 0]]) / 8
    law = torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64)[:, None] * transition
    assert bigram_tv(samples, transition) == pytest.approx(float((joint - law).abs().sum() / 2), abs=1e-9)


def test_initial_law_enters_the_total_variation() -> None:
    flip = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    samples = torch.tensor([[0, 1], [0, 1]])
    assert bigram_tv(samples, flip) == pytest.approx(0.5)
    assert bigram_tv(samples, flip, initial=torch.tensor([1.0, 0.0])) == pytest.approx(0.0, abs=1e-15)


def test_samples_of_the_chain_itself_pass() -> None:
    chain = countdown(8, length=64)
    samples = chain.sample(2000, torch.Generator().manual_seed(0))
    assert forbidden_share(samples, chain.transition) == 0.0
    assert forbidden_samples(samples, chain.transition) == 0.0
    # 2 n times the estimate is chi-square with 7 degrees of freedom: above 43 with probability 3e-7
    estimate = reverse_kl_per_transition(samples, chain.transition)
    assert -1e-12 <= 2 * samples[:, 1:].numel() * estimate < 43
    # 15 cells of 126,000 pairs: 0.05 is beyond 20 standard deviations
    assert bigram_tv(samples, chain.transition) < 0.05


def test_resampled_statistics_equal_a_recount() -> None:
    chain = countdown(6, length=16)
    samples = torch.randint(6, (5, 16), generator=torch.Generator().manual_seed(1))
    weights = bootstrap_weights(5, 3)
    replicates = oracle_statistics(samples, chain.transition, weights)
    for b, column in enumerate(weights.T.long()):
        plain = oracle_statistics(samples.repeat_interleave(column, dim=0), chain.transition)
        for name, value in plain.items():
            assert float(replicates[name][b]) == pytest.approx(float(value), abs=1e-12), name


def test_the_papers_countdown_errors_by_hand() -> None:
    """By token, the first of each sample apart, and by sample: the rule is `s -> s - 1`, and 0 goes anywhere."""
    samples = torch.tensor([[3, 2, 1, 0, 3], [3, 3, 2, 0, 0], [0, 0, 0, 1, 0]])
    transition = countdown(4, length=5).transition
    assert forbidden_share(samples, transition) == pytest.approx(2 / 12)
    assert forbidden_samples(samples, transition) == pytest.approx(1 / 3)


def test_reverse_kl_is_cross_entropy_minus_entropy() -> None:
    samples = torch.randint(3, (20, 30), generator=torch.Generator().manual_seed(0))
    uniform = torch.full((3, 3), 1 / 3, dtype=torch.float64)
    row = OracleMetrics(uniform, num_resamples=10).compute(samples)
    assert row["cross_entropy"] == pytest.approx(math.log(3))
    assert row["reverse_kl"] == pytest.approx(row["cross_entropy"] - row["bigram_entropy"])
    assert len(row["reverse_kl_replicates"]) == 10


@pytest.mark.parametrize(
    ("samples", "transition", "name"),
    [
        (torch.tensor([[0, 2]]), torch.eye(2), "`samples`"),
        (torch.tensor([[0]]), torch.eye(2), "`samples`"),
        (torch.tensor([[0.0, 1.0]]), torch.eye(2), "`samples`"),
        (torch.tensor([[0, 1]]), torch.ones(2, 2), "`transition`"),
        (torch.tensor([[0, 1]]), torch.ones(2, 3), "`transition`"),
        (torch.tensor([[0, 1]]), torch.full((2, 2), torch.nan), "`transition`"),
    ],
)
def test_bad_oracle_input_is_named(samples: torch.Tensor, transition: torch.Tensor, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        oracle_statistics(samples, transition)


def test_rates_by_hand() -> None:
    transition = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5], [1.0, 0.0, 0.0]], dtype=torch.float64)
    samples = torch.tensor([[0, 0, 2], [1, 2, 0], [0, 1, 0]])  # from 0: 0, 2, 1; from 1: 2, 0; from 2: 0
    found = oracle_statistics(samples, transition)
    from_0 = sum(math.log((1 / 3) / q) / 3 for q in (0.5, 0.5, 1e-30))
    from_1 = sum(math.log(0.5 / q) / 2 for q in (0.5, 0.25))
    assert float(found["full_kl_rate"]) == pytest.approx((3 * from_0 + 2 * from_1) / 6)
    tv_0, tv_1 = (2 * (0.5 - 1 / 3) + 1 / 3) / 2, (0.25 + 0.25) / 2
    assert float(found["full_tv_rate"]) == pytest.approx((3 * tv_0 + 2 * tv_1) / 6)


def test_a_transition_from_two_tokens() -> None:
    """A chain of first order, said as one of second order, has the same forbidden share; and sums over triples."""
    first = torch.tensor([[0.5, 0.5], [1.0, 0.0]], dtype=torch.float64)
    samples = torch.tensor([[0, 1, 1, 0], [0, 0, 1, 0]])
    second, contexts = first.repeat(2, 1), torch.full((4,), 0.25)
    found = oracle_statistics(samples, second, contexts=contexts)
    # triples 011, 110, 001, 010: of those the first is forbidden; each context but 01 comes once
    assert float(found["forbidden_share"]) == 1 / 4 and forbidden_samples(samples, second) == 1 / 2
    entropy = 2 / 4 * math.log(2)
    cross = -(math.log(1e-30) + math.log(0.5)) / 4
    assert float(found["full_kl_rate"]) == pytest.approx(cross - entropy)
    with pytest.raises(ValueError, match="`contexts`"):
        oracle_statistics(samples, second)


def test_rate_at_a_distance_by_hand() -> None:
    transition = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5], [1.0, 0.0, 0.0]], dtype=torch.float64)
    samples = torch.tensor([[0, 1, 2, 0, 1], [0, 0, 1, -1, -1]])  # two apart: 0 2, 1 0, 2 1, and 0 1
    two = transition @ transition
    cross = -(math.log(two[0, 2]) + math.log(two[1, 0]) + math.log(two[2, 1]) + math.log(two[0, 1])) / 4
    assert kl_rate_at_distance(samples, transition, 2) == pytest.approx(cross - 2 / 4 * math.log(2))
    near = float(oracle_statistics(samples, transition)["full_kl_rate"])
    assert kl_rate_at_distance(samples, transition, 1) == pytest.approx(near)


def test_right_neighbours_do_not_make_right_pairs_further_away() -> None:
    """A chain of second order has the neighbours of one of first order, but not its tokens two places apart. Exact
    samples have both: 2 n times the rate of 500 x 62 pairs has a mean of 6 here, and stays below 60 but once in 1e8,
    even if overlapping pairs count double.
    """
    second = second_order_chain(3, 64, seed=2)
    pairs = second.ngram_law(2)
    law = pairs / pairs.sum(1, keepdim=True)
    first = MarkovDenoiser(law, pairs.sum(1), length=64)
    right, wrong = (chain.sample(500, torch.Generator().manual_seed(0)) for chain in (first, second))
    limit = 60 / (2 * right[:, 2:].numel())
    assert max(kl_rate_at_distance(right, law, distance) for distance in (1, 2, 8)) < limit
    assert kl_rate_at_distance(wrong, law, 1) < limit
    assert kl_rate_at_distance(wrong, law, 2) > 10 * limit


@pytest.mark.parametrize("distance", [0, 3, -1])
def test_a_distance_beyond_the_samples_is_named(distance: int) -> None:
    with pytest.raises(ValueError, match="`distance` must be between 1 and 2"):
        kl_rate_at_distance(torch.tensor([[0, 1, 0, -1], [1, -1, -1, -1]]), torch.full((2, 2), 0.5), distance)


def test_rates_at_a_distance_are_those_of_first_order_alone() -> None:
    with pytest.raises(ValueError, match="`transition`"):
        kl_rate_at_distance(torch.tensor([[0, 1, 0]]), torch.full((4, 2), 0.5), 1)
    samples = torch.randint(2, (8, 6), generator=torch.Generator().manual_seed(0))
    row = OracleMetrics(torch.full((2, 2), 0.5), num_resamples=4).compute(samples)
    assert row["kl_rate_at_4"] == kl_rate_at_distance(samples, torch.full((2, 2), 0.5), 4)
    assert row["kl_rate_at_8"] is None  # longer than the samples
    second = OracleMetrics(torch.full((4, 2), 0.5), contexts=torch.full((4,), 0.25), num_resamples=4).compute(samples)
    assert second["kl_rate_at_2"] is None
