"""What solvers have in common unless they say otherwise: one call a step, and weights that keep the marginals."""

import pytest
import torch

from lsd_sampler.sampling.noise import NOISE_SCHEDULES, make_noise_schedule
from lsd_sampler.sampling.solvers import SOLVERS


@pytest.mark.parametrize("noise_schedule", NOISE_SCHEDULES.names())
def test_a_step_reveals_what_keeps_the_share_of_masks(noise_schedule: str) -> None:
    noise = make_noise_schedule(noise_schedule)
    t = torch.tensor([1.0, 0.7, 0.3], dtype=torch.float64)
    reveal = SOLVERS["tweedie"].reveal_probability(noise, t, t / 2)
    torch.testing.assert_close(noise.masked(t) * (1 - reveal), noise.masked(t / 2), rtol=1e-6, atol=1e-9)


def test_calls_are_the_steps_of_the_grid() -> None:
    times, places = SOLVERS["euler"].calls(lambda n: torch.linspace(1, 0, n + 1), 4, {})
    assert times.tolist() == [1, 0.75, 0.5, 0.25, 0] and places == [0, 0, 0, 0]
