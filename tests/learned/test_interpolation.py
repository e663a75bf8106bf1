"""Coefficients of the log-score for numbers of steps between those that were learned."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

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
