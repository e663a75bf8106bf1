"""Times: learned and solved ones, grids from counts, and the forward process."""

import numpy as np
import pytest
import torch
from helpers.sampler_runs import EACH_SOLVER, MASK, fixed_model, generate, seeded, step_error, uneven
from hypothesis import given, settings
from hypothesis import strategies as st

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
from lsd_sampler.sampling.noise import NOISE_SCHEDULES
from lsd_sampler.sampling.schedules import grid_from_counts


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


@settings(max_examples=60)
@given(data=st.data(), noise=st.sampled_from(NOISE_SCHEDULES.names()), eps=st.sampled_from([1e-4, 1e-5, 0.02]))
def test_grid_from_counts(data, noise: str, eps: float) -> None:
    """The times are usable for any counts, and give those counts back unless noise leaves too few tokens masked."""
    length = data.draw(st.sampled_from([4, 100, 700, 20_000]))
    inner = data.draw(st.sets(st.integers(1, length - 1), max_size=12))
    counts = [0, *sorted(inner), length]
    scheduler = LSDScheduler(mask_token_id=MASK, noise_schedule=noise)
    grid = grid_from_counts(counts, scheduler.noise, eps)
    LearnedSteps.plain(grid).check("grid")
    if noise == "log_linear" and length <= 700:
        known = (scheduler.noise.alpha(grid[1:-1]) * length).round()
        assert known.tolist() == counts[1:-1]


def test_time_may_be_given_in_any_form() -> None:
    scheduler, canvas = LSDScheduler(mask_token_id=MASK), torch.full((2, 8), MASK)
    scheduler.set_timesteps(4, device="cpu")
    for t in (scheduler.timesteps[1], float(scheduler.timesteps[1]), scheduler.timesteps[1].double(), 0.750025):
        sample = scheduler.step(torch.zeros(2, 8, MASK), t, canvas, generator=seeded()).prev_sample
        assert (sample == MASK).sum() in (8, 10)


def test_can_do_agrees_with_set_timesteps() -> None:
    plain, learned, table = (LSDScheduler(mask_token_id=MASK) for _ in range(3))
    learned.set_learned_sampler(uneven(2))
    table.set_learned_sampler(LearnedSampler({}, step_error()))
    for scheduler in (plain, learned, table):
        for steps in (1, 2, 3, 200):
            try:
                scheduler.set_timesteps(np.int64(steps))
            except ValueError:
                assert not scheduler.can_do(steps)
            else:
                assert scheduler.can_do(steps) and len(scheduler.timesteps) == steps


# ---- the forward process ----


@pytest.mark.parametrize("noise", NOISE_SCHEDULES.names())
def test_forward_process(noise: str) -> None:
    """Each token is masked with probability `1 - alpha(t)`, or kept. The shares stay within 6 standard deviations."""
    scheduler = LSDScheduler(mask_token_id=MASK, noise_schedule=noise)
    tokens = torch.randint(MASK, (3, 40_000))
    for times in (0.3, torch.tensor(0.9), torch.tensor([0.1, 0.5, 1.0])):
        noisy = scheduler.add_noise(tokens, times, generator=seeded())
        masked = noisy == MASK
        assert torch.equal(noisy[~masked], tokens[~masked])
        expected = (1 - scheduler.noise.alpha(times)).expand(3)
        deviation = (expected * (1 - expected) / 40_000).sqrt() + 1e-9
        assert ((masked.double().mean(1) - expected).abs() <= 6 * deviation).all()
    generators = [seeded(i) for i in range(3)]
    rows = scheduler.add_noise(tokens, 0.5, generator=generators)
    assert torch.equal(rows[2:], scheduler.add_noise(tokens[2:], 0.5, generator=[seeded(2)]))
    assert scheduler.add_noise(tokens.view(3, 200, 200), 0.5).shape == (3, 200, 200)
