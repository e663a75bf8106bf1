"""Learned numbers for the numbers of calls that there are, and a step-error table for any."""

import pytest
import torch
from helpers.sampler_runs import EACH_SOLVER, MASK, fixed_model, generate, step_error, uneven

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.learned_numbers import LearnedSampler


@EACH_SOLVER
def test_learned_numbers_of_steps(solver: str) -> None:
    scheduler = LSDScheduler(mask_token_id=MASK, solver=solver)
    assert scheduler.available_num_inference_steps is None
    one, two = uneven(8), uneven(3)
    scheduler.set_learned_sampler(LearnedSampler({**one.steps, **two.steps}))
    assert scheduler.available_num_inference_steps == [3, 8]
    scheduler.set_timesteps(8)
    torch.testing.assert_close(scheduler.timesteps, one.steps[8].timesteps[:-1].float())
    with pytest.raises(ValueError, match=r"`num_inference_steps` must be one of \[3, 8\].* got 12"):
        scheduler.set_timesteps(12)
    scheduler.set_learned_sampler(LearnedSampler(one.steps, step_error()))
    assert scheduler.available_num_inference_steps is None


def test_step_error_table_gives_any_number_of_steps() -> None:
    scheduler = LSDScheduler(mask_token_id=MASK, order="halton")
    scheduler.set_learned_sampler(LearnedSampler(step_error=step_error()))
    canvas = torch.full((2, 16), MASK)
    for M in range(1, 9):
        counts, _ = step_error().solve(M)
        path = generate(scheduler, fixed_model(canvas, MASK), canvas, M)
        assert [int(16 - (x == MASK).sum(1)[0]) for x in path] == counts
        assert torch.equal(scheduler.timesteps, scheduler.steps_for(M).timesteps[:-1].float())
    with pytest.raises(ValueError, match=r"`num_inference_steps` must be in \[1, 8\]"):
        scheduler.set_timesteps(9)
