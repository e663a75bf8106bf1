"""Two-stage solvers: the times of their calls, and the intensities of the second stage."""

import pytest
import torch

from lsd_sampler.sampling.solvers import SOLVERS
from lsd_sampler.sampling.solvers.theta import ThetaSolver


@pytest.mark.parametrize("theta", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("name", ["theta_trapezoidal", "theta_rk2"])
def test_intensities_that_do_not_change_are_their_own_mix(name: str, theta: float) -> None:
    solver, mu = SOLVERS[name], torch.tensor([[0.0, 0.5, 2.0]], dtype=torch.float64)
    assert isinstance(solver, ThetaSolver)
    torch.testing.assert_close(solver.mix(mu, mu, theta), mu)
    assert bool((solver.mix(mu, 0 * mu, theta) >= 0).all())


def test_the_mix_of_halves() -> None:
    """Trapezoidal: twice the second less the first; RK-2: the second, where the first is not 0."""
    mu, mu_star = torch.tensor([[0.0, 1.0, 1.0]]), torch.tensor([[1.0, 2.0, 0.25]])
    trapezoidal, rk2 = SOLVERS["theta_trapezoidal"], SOLVERS["theta_rk2"]
    assert isinstance(trapezoidal, ThetaSolver) and isinstance(rk2, ThetaSolver)
    assert trapezoidal.mix(mu, mu_star, 0.5).tolist() == [[2, 3, 0]]
    assert rk2.mix(mu, mu_star, 0.5).tolist() == [[0, 2, 0.25]]


def test_the_first_stage_covers_a_share_of_the_step() -> None:
    solver = SOLVERS["theta_trapezoidal"]
    times, places = solver.calls(lambda n: torch.linspace(1, 0, n + 1), 3, solver.read_options({"theta": 0.25}))
    assert times.tolist() == [1, 0.875, 0.5, 0] and places == [0, 1, 0]
