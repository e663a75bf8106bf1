"""Coefficients of the log-score, and choices of positions, for numbers of steps between those that were learned."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.chosen_positions import BUDGETS, adaptive, make_choice
from helpers.sampler_runs import step_error

from lsd_sampler import LSDScheduler
from lsd_sampler.learned.interpolation import known_shares
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps, StepErrorTable
from lsd_sampler.sampling.schedules import grid_from_counts


L = 32
TABLE = StepErrorTable(torch.linspace(3, 1, L).double()[:, None].expand(L, L).clone(), torch.arange(L))


def sampler(coefficients: dict[int, torch.Tensor]) -> LSDScheduler:
    """A sampler with a step-error table, and coefficients for some numbers of steps."""
    scheduler = LSDScheduler(mask_token_id=8)
    steps = {}
    for M, beta_M in coefficients.items():
        plain = LearnedSteps.plain(grid_from_counts(TABLE.solve(M)[0], scheduler.noise, scheduler.config.sampling_eps))
        steps[M] = replace(plain, log_score_coefficients=beta_M)
    scheduler.set_learned_sampler(LearnedSampler(steps, TABLE))
    return scheduler


def shares(M: int) -> torch.Tensor:
    scheduler = LSDScheduler()
    times = grid_from_counts(TABLE.solve(M)[0], scheduler.noise, scheduler.config.sampling_eps)
    return known_shares(times, scheduler.noise)


def test_a_linear_function_of_what_is_known_is_met_at_every_number_of_steps() -> None:
    """Where the share of known tokens lies between those of both grids."""
    line = {M: 0.9 + 0.5 * shares(M) for M in (4, 16)}
    scheduler = sampler(line)
    for M in range(4, 17):
        share_M, beta_M = shares(M), scheduler.steps_for(M).log_score_coefficients
        within = share_M <= min(float(shares(m)[-1]) for m in line)
        assert int(within.sum()) >= M // 2
        torch.testing.assert_close(beta_M[within], 0.9 + 0.5 * share_M[within])


def test_they_lie_between_their_neighbours_and_move_from_one_to_the_other() -> None:
    scheduler = sampler(
        {4: torch.full((4,), 2.0).double(), 8: torch.full((8,), 1.5).double(), 16: torch.ones(16).double()}
    )
    means = [float(scheduler.steps_for(M).log_score_coefficients.mean()) for M in range(4, 17)]
    assert means == sorted(means, reverse=True) and len(set(means)) == len(means)
    # half way in the logarithm
    sqrt = sampler({4: torch.full((4,), 2.0).double(), 16: torch.ones(16).double()}).steps_for(8)
    torch.testing.assert_close(sqrt.log_score_coefficients, torch.full((8,), 1.5).double())


def test_learned_ones_are_kept_and_all_else_is_untouched(tmp_path: Path) -> None:
    given = {4: torch.rand(4).double(), 16: torch.rand(16).double()}
    scheduler = sampler(given)
    scheduler.save_pretrained(tmp_path)
    plain = sampler({})
    for each in (scheduler, LSDScheduler.from_pretrained(tmp_path)):
        for M, beta_M in given.items():
            assert torch.equal(each.steps_for(M).log_score_coefficients, beta_M)
        for M in (1, 3, 5, 8, 15, 17, L):
            assert torch.equal(each.steps_for(M).timesteps, plain.steps_for(M).timesteps)
            assert bool((each.steps_for(M).score_coefficients == 1).all())
        for M in (1, 3, 17, L):  # nothing is known of these
            assert bool((each.steps_for(M).log_score_coefficients == 1).all())


@pytest.mark.parametrize("M", range(1, L + 1))
def test_coefficients_of_1_stay_1_to_the_last_bit(M: int) -> None:
    ones = sampler({m: torch.ones(m).double() for m in (3, 11, 24)})
    assert ones.steps_for(M).log_score_coefficients.tolist() == [1.0] * M


# ---- the choice of positions ----

KNOWN = (2, 4, 12)


def chooser(budgets: tuple[str, str, str] = (BUDGETS[0],) * 3) -> LSDScheduler:
    """Shares that differ from one number of calls to the next, and times that are no straight line."""
    choices = [
        make_choice([*torch.linspace(0.1, 0.5, M)[:-1].tolist(), 1], budget, own=1, random=0.5)
        for M, budget in zip(KNOWN, budgets, strict=True)
    ]
    scheduler = adaptive(choices, mask_token_id=3)
    for M in KNOWN:
        scheduler.learned_sampler.steps[M].timesteps[:] = torch.linspace(1, 0.01, M + 1).double() ** (1 + 1 / M)
    return scheduler


def open_after(steps: LearnedSteps, places: torch.Tensor) -> np.ndarray:
    """The share that is open after parts of the steps, linear between them."""
    assert steps.choice is not None
    left = [1.0, *(1 - steps.choice.shares).cumprod(0).tolist()]
    return np.interp(places, np.linspace(0, 1, len(left)), left)


def test_learned_numbers_of_calls_are_as_learned() -> None:
    scheduler = chooser()
    assert scheduler.available_num_inference_steps is None and scheduler.can_do(77)
    assert all(scheduler.steps_for(M) is scheduler.learned_sampler.steps[M] for M in KNOWN)


@pytest.mark.parametrize("M", [1, 2, 3, 5, 7, 11, 13, 40, 1000])
def test_any_other_number_has_a_usable_choice(M: int) -> None:
    steps = chooser().steps_for(M)
    steps.check("here")  # shares in [0, 1], the last 1; times in (0, 1], decreasing in float32
    assert steps.choice is not None and len(steps.choice.shares) == M
    assert bool((steps.score_coefficients == 1).all())


@pytest.mark.parametrize(("low", "M", "high"), [(2, 3, 4), (4, 5, 12), (4, 7, 12), (4, 11, 12)])
def test_between_two_the_curve_lies_between_theirs(low: int, M: int, high: int) -> None:
    """Linear in the logarithm of the number of calls; the times too."""
    scheduler, places = chooser(), torch.linspace(0, 1, M + 1, dtype=torch.float64)
    steps = scheduler.steps_for(M)
    weight = math.log(M / low) / math.log(high / low)
    curves = [open_after(scheduler.steps_for(n), places) for n in (low, high)]
    np.testing.assert_allclose(open_after(steps, places), (1 - weight) * curves[0] + weight * curves[1], atol=1e-9)
    times = [np.interp(places, np.linspace(0, 1, n + 1), scheduler.steps_for(n).timesteps) for n in (low, high)]
    np.testing.assert_allclose(steps.timesteps, (1 - weight) * times[0] + weight * times[1], atol=1e-9)


@pytest.mark.parametrize("M", [1, 2, 3, 5, 9, 40])
def test_nats_are_spread_over_other_numbers_of_calls(M: int) -> None:
    """Of 5 calls, the first four take 1, 1, 4 and 2 nats: so do the first M - 1 together, and halves of them alike."""
    choice = make_choice([1.0, 1.0, 4.0, 2.0, 1.0], "entropy_bounds", own=1)
    steps = adaptive([choice]).steps_for(M)
    steps.check("here")
    assert steps.choice is not None and steps.choice.budget == "entropy_bounds"
    bounds = steps.choice.shares[:-1]
    assert len(bounds) == M - 1 and float(bounds.sum()) == pytest.approx(8 if M > 1 else 0)
    if M % 2 == 1 and M > 1:
        assert float(bounds[: M // 2].sum()) == pytest.approx(2)


@pytest.mark.parametrize(("M", "nearest"), [(1, 2), (13, 12), (100, 12), (24, 12)])
def test_beyond_those_learned_the_nearest_gives_the_curve(M: int, nearest: int) -> None:
    scheduler, places = chooser(), torch.linspace(0, 1, M + 1, dtype=torch.float64)
    np.testing.assert_allclose(
        open_after(scheduler.steps_for(M), places), open_after(scheduler.steps_for(nearest), places), atol=1e-9
    )


@pytest.mark.parametrize(("M", "nearest"), [(5, 4), (6, 4), (7, 12), (11, 12), (3, 4)])
def test_shares_of_different_budgets_are_not_mixed(M: int, nearest: int) -> None:
    scheduler, places = chooser((BUDGETS[1], BUDGETS[1], BUDGETS[0])), torch.linspace(0, 1, M + 1, dtype=torch.float64)
    steps, near = scheduler.steps_for(M), scheduler.steps_for(nearest)
    assert steps.choice is not None and near.choice is not None
    assert steps.choice.budget == near.choice.budget
    if M > 4:
        np.testing.assert_allclose(open_after(steps, places), open_after(near, places), atol=1e-9)


def test_a_choice_goes_before_a_table() -> None:
    """More calls than the table has states are no error either."""
    scheduler = chooser()
    alone = scheduler.steps_for(7)
    scheduler.set_learned_sampler(LearnedSampler(scheduler.learned_sampler.steps, step_error(4)))
    again = scheduler.steps_for(7)
    assert alone.choice and again.choice and torch.equal(alone.choice.shares, again.choice.shares)
    assert torch.equal(alone.timesteps, again.timesteps)


def test_coefficients_are_interpolated_with_the_choice() -> None:
    scheduler = chooser()
    for M in KNOWN:
        scheduler.learned_sampler.steps[M].log_score_coefficients[:] = 1.3
    assert scheduler.steps_for(7).log_score_coefficients.tolist() == pytest.approx([1.3] * 7)
