"""The search, on figures whose costs are known."""

import math
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from lsd_sampler.sampling.noise import LogLinear
from lsd_sampler.sampling.position_choice import BUDGETS, WEIGHTS
from lsd_sampler.training.position_search import (
    FINALISTS,
    Budget,
    Candidate,
    Measured,
    Measurements,
    improve,
    most_spent,
    search,
)


L = 16
RANDOM = (0.0, 0.0, 0.0, 1.0, 0.0)
GREEDY = (0.0, 1.0, 0.3, 0.01, 0.0)
UNIFORM = (1 / 3, 1 / 2, 1.0)
SIMPLE = Candidate("random", UNIFORM, RANDOM)
LOOKS = Candidate("table", UNIFORM, GREEDY, 0.1)


def number_of(candidate: Candidate, *others: object) -> int:
    """A number that looks random and is always the same."""
    return zlib.crc32(repr((replace(candidate, name=""), *others)).encode())


class FakeFigure:
    """Costs that a function of the candidate says, with noise of each sequence, and of each candidate if asked for."""

    def __init__(self, cost: Callable[[Candidate], float], num: int = 128, noise: float = 0.0):
        self.cost, self.num_fit, self.num_check, self.noise = cost, num, num, noise
        self.spent = 0
        self.asked: list[tuple[Candidate, str, int]] = []

    def __call__(self, candidate: Candidate, part: str, num: int | None = None) -> Measured:
        most = self.num_fit if part == "fit" else self.num_check
        num = most if num is None else min(num, most)
        self.spent += num * len(candidate.shares)
        self.asked.append((candidate, part, num))
        shared = torch.randn(most, generator=torch.Generator().manual_seed(len(part))).double()
        own = torch.Generator().manual_seed(number_of(candidate, part))
        costs = self.cost(candidate) + 5 * shared + self.noise * torch.randn(most, generator=own).double()
        left = L * torch.cumprod(1 - torch.tensor(candidate.shares, dtype=torch.float64), 0)
        known, opened = 1 - left / L, torch.cat([torch.tensor([float(L)], dtype=torch.float64), left[:-1]])
        return Measured(costs[:num], known, opened)


def distance(wanted: tuple[int, ...]) -> Callable[[Candidate], float]:
    """How far the numbers of tokens of each call are from those wanted; looking at the logits saves a nat."""

    def cost(c: Candidate) -> float:
        left, total = L, 0.0
        for share, number in zip(c.shares, wanted, strict=True):
            taken = math.ceil(share * left - 1e-9)
            total += abs(taken - number)
            left -= taken
        return total - (not c.is_simple)

    return cost


# ---- candidates ----


def test_numbers_of_a_candidate() -> None:
    c = Candidate("found", (0.25, 0.5, 1.0), GREEDY, 0.01, BUDGETS[1], 1.5)
    steps = c.steps(torch.tensor([0.25, 0.6, 1.0]), LogLinear(), 1e-4)
    steps.check("here")
    assert steps.choice is not None
    assert [steps.choice.weight(name) for name in WEIGHTS] == [c.weight(name) for name in WEIGHTS] == list(GREEDY)
    assert steps.choice.shares.tolist() == [*c.shares] and steps.choice.budget == BUDGETS[1]
    assert float(steps.choice.free_below) == 0.01 and steps.log_score_coefficients.tolist() == [1.5] * 3
    known = LogLinear().alpha(steps.timesteps[1:-1])
    torch.testing.assert_close(known, torch.tensor([0.25, 0.6]).double(), rtol=0, atol=1e-6)
    assert Candidate("entropy", (0.5, 1.0)).steps(torch.tensor([0.5, 1.0]), LogLinear(), 1e-4).choice is None


@pytest.mark.parametrize(
    ("changes", "simple"),
    [
        ({}, True),
        ({"free_below": 0.01}, False),
        ({"budget": BUDGETS[1]}, False),
        ({"beta": 1.1}, True),
        ({"weights": GREEDY}, False),
        ({"weights": None}, False),
    ],
)
def test_simple_is_what_does_not_look_at_the_logits(changes: dict[str, Any], simple: bool) -> None:
    assert Candidate(**{"name": "", "shares": (0.5, 1.0), "weights": RANDOM, **changes}).is_simple == simple


def test_a_name_makes_no_other_candidate() -> None:
    assert Candidate("one", UNIFORM) == Candidate("two", UNIFORM)


# ---- what is counted ----


def test_a_part_of_a_budget_spends_the_whole() -> None:
    whole = Budget(100)
    part = whole.part(0.5)
    assert part.allows(4, 10) and not part.allows(4, 10)
    assert whole.left == 60 and whole.allows(6, 10) and not whole.allows(1, 1)
    assert not part.allows(1, 5)  # it would be within the part


def test_nothing_is_measured_twice() -> None:
    figure = FakeFigure(lambda c: 0.0)
    measurements = Measurements(figure)
    for name in ("one", "two"):
        for num in (16, 200, None):
            measurements(Candidate(name, UNIFORM), "fit", num)
    assert measurements.spent == figure.spent == 3 * (16 + 128)


@pytest.mark.parametrize("most", [0, 500, 3000, 20000, 100000])
@pytest.mark.parametrize("num", [2, 20, 64, 500])
@pytest.mark.parametrize("betas", [(), (1.2, 1.5)])
def test_no_more_than_the_budget_is_spent(most: int, num: int, betas: tuple[float, ...]) -> None:
    figure = FakeFigure(distance((1, 5, 10)), num)
    candidates = [LOOKS, SIMPLE, *(Candidate("", UNIFORM, (own, 1.0, 0.0, 0.01, 0.0)) for own in (0.1, 0.3, 1, 3))]
    found = search(figure, candidates, most, betas)
    assert found.evaluations == figure.spent <= most_spent(most, 3)
    assert most_spent(most, 3) <= max(most, 3 * 5 * 64)
    assert len(found.others) < FINALISTS


# ---- what is found ----


def test_it_finds_the_numbers_of_tokens() -> None:
    figure = FakeFigure(distance((1, 5, 10)))
    found = search(figure, [SIMPLE, LOOKS], 100_000)
    assert distance((1, 5, 10))(found.best) == -1 and not found.best.is_simple
    assert found.measured.costs_S.shape == (figure.num_check,)


def test_improving_never_makes_it_worse() -> None:
    for seed in range(5):
        figure = Measurements(FakeFigure(lambda c, s=seed: number_of(c, s) % 1000 / 100))
        found = improve(figure, LOOKS, 64, Budget(20_000), ())
        assert found is not None
        assert found[1].mean <= figure(LOOKS, "fit", 64).mean
        assert improve(figure, LOOKS, 64, Budget(100), ()) is None


@pytest.mark.parametrize("seed", range(20))
def test_what_is_found_beats_the_simple_order_or_is_simple(seed: int) -> None:
    """Costs that are chance alone: on the sequences that decide, only what is better by two standard errors wins."""
    figure = FakeFigure(lambda c, s=seed: number_of(c, s) % 100 / 100, noise=1.0)
    found = search(figure, [SIMPLE, LOOKS, Candidate("table", (0.1, 0.2, 1.0), (1.0, 0, 0, 0.01, 0))], 20_000)
    compared = [(found.best, found.measured), *found.others]
    simple = min(m.mean for c, m in compared if c.is_simple)
    assert any(c.is_simple for c, _ in compared)
    if not found.best.is_simple:
        (other,) = [m for c, m in compared if c.is_simple and m.mean == simple]
        gain = other.costs_S - found.measured.costs_S
        assert float(gain.mean()) > 2 * float(gain.std()) / len(gain) ** 0.5
    assert {part for _, part, _ in figure.asked} == {"fit", "check"}


def test_a_worse_look_is_not_taken_and_a_much_better_one_is() -> None:
    def cost(gain: float) -> Callable[[Candidate], float]:
        return lambda c: -gain * (not c.is_simple)

    assert search(FakeFigure(cost(-1)), [LOOKS, SIMPLE], 20_000).best.is_simple
    assert search(FakeFigure(cost(1)), [LOOKS, SIMPLE], 20_000).best.weights == GREEDY
    assert search(FakeFigure(cost(0.05), noise=1.0), [LOOKS, SIMPLE], 20_000).best.is_simple


def test_a_small_budget_still_looks_at_a_simple_order() -> None:
    assert search(FakeFigure(lambda c: 0.0), [LOOKS, LOOKS, SIMPLE], 0).best == SIMPLE


def test_an_order_without_weights_needs_no_simple_one() -> None:
    """There is nothing to fall back on: the best shares on the sequences that decide."""
    figure = FakeFigure(distance((1, 5, 10)))
    found = search(figure, [Candidate("entropy", UNIFORM), Candidate("entropy", (0.2, 0.4, 1.0))], 20_000)
    assert distance((1, 5, 10))(found.best) == -1 and found.best.weights is None
    assert found.measured.mean == min(m.mean for _, m in [(found.best, found.measured), *found.others])


def test_temperatures_are_searched_where_they_are_given() -> None:
    figure = FakeFigure(lambda c: abs(c.beta - 1.5))
    assert search(figure, [SIMPLE, LOOKS], 20_000, (1.2, 1.5)).best.beta == 1.5
    assert search(figure, [SIMPLE, LOOKS], 20_000).best.beta == 1.0
