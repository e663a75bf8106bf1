"""The cheapest shares by costs that were measured once."""

import itertools
import math

import pytest
import torch

from lsd_sampler.sampling.position_choice import BUDGETS, num_within
from lsd_sampler.training.ranked_costs import RankedCosts, StateCosts
from lsd_sampler.training.share_search import best_shares, neighbours, plain_shares, shares_of_curve, whole


L, ROWS = 6, 5


def costs(seed: int = 0) -> RankedCosts:
    """One token a state; random entropies and costs."""
    generator = torch.Generator().manual_seed(seed)
    nats, entropy = torch.rand(2, L, ROWS, L, generator=generator).unbind(0)
    counts = [torch.full((ROWS,), L - g) for g in range(L)]
    return RankedCosts.of([StateCosts(*each) for each in zip(nats, entropy, counts, counts, strict=True)], 0.0)


@pytest.mark.parametrize("M", [1, 2, 3, 7])
def test_plain_shares_take_everything_in_the_end(M: int) -> None:
    shares_CM = plain_shares(M)
    assert shares_CM.shape[1] == M and bool((shares_CM[:, -1] == 1).all())
    assert bool(((shares_CM >= 0) & (shares_CM <= 1)).all())
    uniform = torch.tensor([1 / (M - k) for k in range(M)], dtype=torch.float64)
    assert any(torch.allclose(shares_M, uniform) for shares_M in shares_CM)


def test_shares_of_a_curve_lead_along_it() -> None:
    known = torch.tensor([0.1, 0.4, 0.4, 0.7, 1.0], dtype=torch.float64)
    left = torch.cumprod(1 - shares_of_curve(known), 0)
    torch.testing.assert_close(1 - left, known)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("seed", range(5))
def test_what_is_found_is_no_worse_than_any_start(budget: str, seed: int) -> None:
    ranked, starts_CM = costs(seed), plain_shares(3)
    shares_M, nats = best_shares(ranked, budget, starts_CM)
    assert nats <= float(ranked.follow(starts_CM, budget)[0].mean(1).min())
    assert nats == pytest.approx(float(ranked.follow(shares_M[None], budget)[0].mean()))
    assert float(shares_M[-1]) == 1 and bool(((shares_M >= 0) & (shares_M <= 1)).all())


@pytest.mark.parametrize("seed", range(5))
def test_of_two_calls_the_best_shares_are_found(seed: int) -> None:
    """All that a first call can take, one after another."""
    ranked = costs(seed)
    every_CM = torch.tensor([[max(0.0, n - 0.5) / L, 1.0] for n in range(L + 1)], dtype=torch.float64)
    least = float(ranked.follow(every_CM, BUDGETS[0])[0].mean(1).min())
    assert best_shares(ranked, BUDGETS[0], every_CM[1:3])[1] >= least - 1e-12
    assert best_shares(ranked, BUDGETS[0], every_CM)[1] == pytest.approx(least)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("M", [1, 2, 4, 20, 64])
def test_neighbours_are_shares(budget: str, M: int) -> None:
    for start in (
        plain_shares(M)[0],
        torch.ones(M).double(),
        torch.zeros(M).double().index_fill(0, torch.tensor(M - 1), 1),
    ):
        left_M = torch.linspace(30, 0, M).double()
        changed_CM = neighbours(start, left_M, budget)
        assert changed_CM.shape[1] == M and (M == 1) == (len(changed_CM) == 0)
        assert bool((changed_CM >= 0).all()) and (budget == "entropy_bounds" or bool((changed_CM <= 1).all()))
        assert bool((changed_CM[:, -1:] == 1).all())


def test_a_neighbour_takes_one_position_more_and_the_next_call_one_fewer() -> None:
    """12 positions, 3 in the first call, 4 in the second."""
    start = torch.tensor([2.5 / 12, 3.5 / 9, 1.0], dtype=torch.float64)

    def taken(shares: torch.Tensor) -> tuple[int, int]:
        first = math.ceil(float(shares[0]) * 12 - 1e-9)
        return first, math.ceil(float(shares[1]) * (12 - first) - 1e-9)

    found = {taken(shares) for shares in neighbours(start, torch.tensor([12.0, 9.0, 5.0]).double(), BUDGETS[0])}
    assert taken(start) == (3, 4)
    assert {(4, 3), (2, 5), (5, 2), (1, 6)} <= found


def test_a_whole_share_takes_whole_positions() -> None:
    for left, number, delta in itertools.product((5, 16), (1, 3), (-1, 0, 2)):
        share = whole(torch.tensor(number / left, dtype=torch.float64), torch.tensor(float(left)).double(), delta)
        assert int(num_within(float(share), torch.tensor([left]))[0]) == max(0, min(number + delta, left))
