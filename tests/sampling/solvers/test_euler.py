"""The Euler step: the analytic step's under log-linear noise, and to first order everywhere."""

import pytest
import torch

from lsd_sampler.sampling.corruptions import Absorbing, Gaussian, Uniform
from lsd_sampler.sampling.noise import Geometric, LogLinear
from lsd_sampler.sampling.solvers import SOLVERS


PREDICTION = torch.tensor([[0.5, 0.3, 0.2, 0.0]] * 2, dtype=torch.float64)


def test_under_log_linear_noise_it_is_tweedie() -> None:
    noise, x = LogLinear(1e-3), torch.tensor([3, 1])
    euler, tweedie = (
        SOLVERS[name].law(Absorbing(3, 4), noise, PREDICTION, x, 0.8, 0.3, "logits") for name in ("euler", "tweedie")
    )
    torch.testing.assert_close(euler, tweedie)


@pytest.mark.parametrize("corruption", [Absorbing(3, 4), Uniform(4), Gaussian(4, 2.0, 3.0)], ids=lambda c: c.name)
def test_half_the_step_has_a_quarter_of_the_error(corruption: Absorbing | Uniform | Gaussian) -> None:
    noise, x, errors = Geometric(0.05, 3.0), torch.tensor([3, 1]), []
    for step in (2e-3, 1e-3):
        euler, tweedie = (
            SOLVERS[name].law(corruption, noise, PREDICTION, x, 0.6, 0.6 - step, "logits")
            for name in ("euler", "tweedie")
        )
        torch.testing.assert_close(euler.sum(-1), torch.ones(2, dtype=torch.float64))
        errors.append(float((euler - tweedie).abs().max()))
    assert 3.5 < errors[0] / errors[1] < 4.5
