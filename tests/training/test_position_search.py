"""The search, on figures whose costs are known."""

import math
from collections.abc import Callable

import pytest
from helpers.fake_figures import GREEDY, LOOKS, SIMPLE, UNIFORM, FakeFigure, distance, number_of

from lsd_sampler.sampling.position_choice import BUDGETS
from lsd_sampler.training.position_candidates import Candidate
from lsd_sampler.training.position_search import FINALISTS, most_spent, quick_search, search


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


@pytest.mark.parametrize("most", [0, 100, 5_000, 20_000])
def test_a_quick_search_never_makes_it_worse(most: int) -> None:
    for seed in range(5):
        figure = FakeFigure(lambda c, s=seed: number_of(c, s) % 1000 / 100)
        found = quick_search(figure, [LOOKS], most)
        assert figure.spent <= max(most, 3 * 16)
        assert [m.mean for _, m in found] == sorted(m.mean for _, m in found)
        num = len(found[0][1].costs_S)
        assert found[0][1].mean <= figure(LOOKS, "fit", num).mean and {len(m.costs_S) for _, m in found} == {num}


def test_a_search_can_be_repeated() -> None:
    figure = FakeFigure(distance((1, 5, 10)))
    first, again, other = (search(figure, [SIMPLE, LOOKS], 9_000, seed=seed) for seed in (1, 1, 2))
    assert first.best == again.best and first.evaluations == again.evaluations
    assert {c for c, _ in first.others} == {c for c, _ in again.others} != {c for c, _ in other.others}


def test_each_budget_is_followed() -> None:
    """A budget that begins far behind, and is best in the end."""
    begin = Candidate("table", (0.5, 0.5, 1.0), GREEDY, 0.1, BUDGETS[1])

    def cost(c: Candidate) -> float:
        if c.budget == BUDGETS[0]:
            return 12.0 if c.is_simple else 10.0
        return 20.0 * math.log(max(c.shares[0], 1e-3) / 0.1) ** 2

    found = search(FakeFigure(cost), [SIMPLE, LOOKS, begin], 60_000)
    assert found.best.budget == BUDGETS[1] and found.best.shares[0] == pytest.approx(0.1, rel=0.2)


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
