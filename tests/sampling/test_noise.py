"""Noise schedules: the rate is the derivative of the total, times and shares of tokens are each other's inverse."""

from typing import Any

import pytest
import torch

from lsd_sampler.sampling.noise import NOISE_SCHEDULES, make_noise_schedule


EACH = pytest.mark.parametrize("name", NOISE_SCHEDULES.names())
TIMES = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)


@EACH
def test_the_rate_is_the_derivative_of_the_total(name: str) -> None:
    noise = make_noise_schedule(name)
    slope = (noise.total(TIMES + 1e-3) - noise.total(TIMES - 1e-3)) / 2e-3
    torch.testing.assert_close(noise.rate(TIMES), slope, rtol=2e-4, atol=0)


@EACH
def test_a_share_of_tokens_gives_its_time_back(name: str) -> None:
    noise = make_noise_schedule(name)
    torch.testing.assert_close(noise.inverse_alpha(noise.alpha(TIMES)), TIMES, rtol=0, atol=1e-6)
    torch.testing.assert_close(noise.alpha(TIMES) + noise.masked(TIMES), torch.ones_like(TIMES))
    assert bool((noise.alpha(TIMES).diff() < 0).all())
    assert float(noise.total(0.5)) == float(noise.total(torch.tensor(0.5)))


def test_few_masks_are_counted_without_cancellation() -> None:
    assert float(make_noise_schedule("log_linear").masked(1e-20)) == pytest.approx(0.999e-20, rel=1e-12, abs=0)


@pytest.mark.parametrize(
    ("name", "constants", "named"),
    [
        ("log_linear", {"noise_eps": 0.0}, "`noise_eps`"),
        ("cosine", {"noise_eps": 1.0}, "`noise_eps`"),
        ("geometric", {"sigma_min": 2.0, "sigma_max": 1.0}, "`sigma_min` and `sigma_max`"),
        ("exponential", {"time_exponential": 1.0}, "`time_exponential`"),
        ("log_linaer", {}, "log_linear"),
    ],
)
def test_constants_out_of_range_are_named(name: str, constants: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make_noise_schedule(name, **constants)
