"""Candidates of a search, and what measuring them spends."""

from typing import Any

import pytest
import torch
from helpers.fake_figures import GREEDY, RANDOM, UNIFORM, FakeFigure

from lsd_sampler.sampling.noise import LogLinear
from lsd_sampler.sampling.position_choice import BUDGETS, WEIGHTS
from lsd_sampler.training.position_candidates import FEWEST, Budget, Candidate, Measurements


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


@pytest.mark.parametrize("weights", [None, GREEDY])
def test_numbers_say_all_but_the_name(weights: tuple[float, ...] | None) -> None:
    c = Candidate("one", (0.1, 0.3, 1.0), weights, 0.3, BUDGETS[2], 3.0)
    again = Candidate.of_numbers("two", c.numbers())
    assert again == c and again.name == "two"


def test_a_part_of_a_budget_spends_the_whole() -> None:
    whole = Budget(400)
    part = whole.part(0.5)
    assert part.allows(4, 40) and not part.allows(4, 40)
    assert whole.left == 240 and whole.allows(6, 40) and not whole.allows(1, 1)
    assert not part.allows(1, 20)  # it would be within the part


def test_few_sequences_count_as_a_batch() -> None:
    budget = Budget(3 * FEWEST)
    assert budget.allows(2, 1) and budget.allows(1, FEWEST) and not budget.allows(1, 1)


def test_nothing_is_measured_twice() -> None:
    figure = FakeFigure(lambda c: 0.0)
    measurements = Measurements(figure)
    for name in ("one", "two"):
        for num in (16, 200, None):
            measurements(Candidate(name, UNIFORM), "fit", num)
    assert measurements.spent == figure.spent == 3 * (16 + 128)
