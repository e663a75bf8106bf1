"""Random changes of a choice of positions."""

from typing import Any

import pytest
import torch
from helpers.fake_figures import GREEDY

from lsd_sampler.sampling.position_choice import BUDGETS
from lsd_sampler.training.position_candidates import Candidate, Measured
from lsd_sampler.training.position_changes import Changes
from lsd_sampler.training.position_space import FREE_BELOW, PositionSpace


SHARES = (0.2, 0.3, 0.5, 1.0)
OTHER = Candidate("other", SHARES, (1.0, 0.0, 0.0, 0.0, 0.3), 0.3, beta=7.0)
MEASURED = Measured(
    torch.zeros(4).double(), torch.linspace(0.25, 1, 4).double(), torch.tensor([16.0, 12, 9, 5]).double()
)
BOUNDS = (1.0, 2.5, 0.7, 1.0)


def drawn(parent: Candidate, num: int = 400, **options: Any) -> list[Candidate]:
    changes = Changes(**options)
    return [c for c in (changes(parent, MEASURED, [OTHER]) for _ in range(num)) if c is not None]


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_change_is_a_choice_of_as_many_calls(budget: str) -> None:
    parent = Candidate("table", BOUNDS if budget == BUDGETS[2] else SHARES, GREEDY, 0.1, budget)
    found = drawn(parent)
    assert len(found) > 200
    for c in found:
        assert c != parent and c.name == "found" and c.budget == budget and c.looks_at_logits
        assert len(c.shares) == 4 and c.shares[-1] == 1 and min(c.shares) >= 0
        assert budget == BUDGETS[2] or max(c.shares) <= 1
    assert any(c.shares != parent.shares for c in found) and any(c.weights != GREEDY for c in found)
    assert {c.free_below for c in found} == set(FREE_BELOW)
    assert any(c.weights == OTHER.weights for c in found)


def test_calls_take_whole_positions_more_or_less() -> None:
    """Of 16 open ones the first call takes 4; changes by position leave it at a number between 2 and 6."""
    parent = Candidate("table", (3.5 / 16, 1.0), GREEDY, 0.1)
    measured = Measured(torch.zeros(1).double(), torch.ones(2).double(), torch.tensor([16.0, 12.0]).double())
    changes = Changes(seed=3)
    found = [c for c in (changes(parent, measured, [parent]) for _ in range(400)) if c is not None]
    halves = [
        c.shares[0] * 16 for c in found if c.shares[0] != parent.shares[0] and abs(c.shares[0] * 16 % 1 - 0.5) < 1e-9
    ]
    assert {round(half + 0.5) for half in halves} >= {2, 3, 5, 6}


def test_temperatures_are_those_that_are_given() -> None:
    parent = Candidate("table", SHARES, GREEDY, 0.1)
    assert {c.beta for c in drawn(parent)} == {1.0, OTHER.beta}  # what another has may be taken
    assert {c.beta for c in drawn(parent, betas=(1.5, 3.0))} == {1.0, 1.5, 3.0, OTHER.beta}


def test_without_weights_only_shares_change() -> None:
    parent = Candidate("entropy", SHARES)
    found = drawn(parent, betas=(1.5,))
    assert found and all(c.shares != SHARES and c.weights is None and c.beta == 1 for c in found)
    assert drawn(Candidate("entropy", (1.0,))) == []


def test_no_change_leaves_the_space() -> None:
    space = PositionSpace(terms=("redundancy", "gain", "random"), free_below=(0.1, 0.2))
    found = drawn(Candidate("table", SHARES, GREEDY, 0.1), space=space)
    assert found and all(space.admits(c) for c in found)
    assert all(not c.weight("own") and not c.weight("halton") and c.free_below in (0.1, 0.2) for c in found)


def test_draws_can_be_repeated() -> None:
    parent = Candidate("table", SHARES, GREEDY, 0.1)
    assert drawn(parent, 50, seed=1) == drawn(parent, 50, seed=1) != drawn(parent, 50, seed=2)
