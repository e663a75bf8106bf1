"""The forward process: what noise at a time masks, and what it keeps."""

import pytest
import torch
from helpers.sampler_runs import MASK, seeded
from helpers.tiny_pipelines import IMAGE_MASK

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.noise import NOISE_SCHEDULES


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


def test_noise_at_a_time_is_that_of_the_time() -> None:
    """What was set without a temperature by position is no pipeline of aMUSEd: a time is a time."""
    scheduler = LSDScheduler(mask_token_id=IMAGE_MASK)
    tokens = torch.zeros(64, 64, dtype=torch.long)
    scheduler.set_timesteps(4)
    noised = scheduler.add_noise(tokens, scheduler.timesteps[1], generator=seeded())
    assert float((noised == IMAGE_MASK).float().mean()) == pytest.approx(0.749, abs=0.03)
    scheduler.set_timesteps(4, (2, 0), "cpu")  # as they do; a time that is none of theirs is one all the same
    noised = scheduler.add_noise(tokens, torch.tensor(0.3), generator=seeded())
    assert float((noised == IMAGE_MASK).float().mean()) == pytest.approx(0.3, abs=0.03)
