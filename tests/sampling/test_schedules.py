"""Times: grids from counts, the forms in which a step is named, and the numbers of steps that can be had."""

import numpy as np
import torch
from helpers.sampler_runs import MASK, seeded, step_error, uneven
from hypothesis import given, settings
from hypothesis import strategies as st

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
from lsd_sampler.sampling.noise import NOISE_SCHEDULES
from lsd_sampler.sampling.schedules import grid_from_counts


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
