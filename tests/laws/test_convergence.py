"""How fast the law of the samples comes to that of the data as calls become more: exact laws, by matrices.

Two tokens of two kinds under weak dependence: no reveal halves another token's intensity, so no mix of intensities is
negative. Nothing is drawn.
"""

import itertools
import math

import numpy as np
import pytest
import torch

from lsd_sampler.sampling.noise import LogLinear
from lsd_sampler.sampling.solvers import SOLVERS
from lsd_sampler.sampling.solvers.theta import ThetaSolver


MASK, EPS, NOISE = 2, 1e-4, LogLinear(1e-3)
STATES = list(itertools.product(range(3), repeat=2))
DATA = np.array([[0.33, 0.22], [0.19, 0.26]])
CALLS = (16, 32, 64, 128)


def predicted(state: tuple[int, int]) -> torch.Tensor:
    """Law of each token given the other, `(2, 2)`; 0 where a token is known."""
    rows = np.zeros((2, 2))
    for i in range(2):
        if state[i] == MASK:
            joint = DATA if i == 0 else DATA.T
            rows[i] = joint.sum(1) if state[1 - i] == MASK else joint[:, state[1 - i]]
            rows[i] /= rows[i].sum()
    return torch.from_numpy(rows)


PREDICTED = torch.stack([predicted(state) for state in STATES])  # (9, 2, 2)
IS_MASKED = torch.tensor(STATES) == MASK


def moved(state: int, weight: torch.Tensor, probability: torch.Tensor) -> torch.Tensor:
    """Law of the canvas, `(9,)`, after each masked position leaps, by its probability, to a token by its weights."""
    rows = torch.nn.functional.one_hot(torch.tensor(STATES[state]), 3).double()
    for i in range(2):
        if IS_MASKED[state, i]:
            rows[i] = torch.cat([probability[i] * weight[i] / weight[i].sum(), 1 - probability[i, None]])
    return torch.outer(rows[0], rows[1]).flatten()


def grid(num_steps: int) -> torch.Tensor:
    return torch.linspace(1, EPS, num_steps + 1, dtype=torch.float64)


def intensity(t: float) -> float:
    return float(NOISE.rate(t) * NOISE.alpha(t) / NOISE.masked(t))


def one_call_kernel(name: str, t: float, s: float, last: bool) -> torch.Tensor:
    r = SOLVERS[name].reveal_probability(NOISE, *torch.tensor([t, s], dtype=torch.float64)).clamp(max=1)
    probability = torch.ones(2).double() if last else r.expand(2)
    return torch.stack([moved(x, PREDICTED[x], probability) for x in range(9)])


def two_call_kernel(solver: ThetaSolver, theta: float, t: float, t_star: float, s: float, last: bool) -> torch.Tensor:
    mu, mu_star = intensity(t) * PREDICTED, intensity(t_star) * PREDICTED
    kernel = torch.zeros(9, 9, dtype=torch.float64)
    for x in range(9):
        between = moved(x, mu[x], solver.leap((t - t_star) * mu[x].sum(-1)))
        for y in between.nonzero()[:, 0].tolist():
            begin = x if solver.starts_over and not last else y
            weight = solver.mix(mu[x], mu_star[y], theta)
            jumps = ((t if solver.starts_over else t_star) - s) * weight.sum(-1)
            probability = torch.ones(2).double() if last else solver.leap(jumps)
            safe = torch.where(weight.sum(-1, keepdim=True) > 0, weight, torch.ones_like(weight))
            kernel[x] += between[y] * moved(begin, safe, probability)
    return kernel


def error(name: str, num_calls: int, theta: float = 0.5) -> float:
    """Total variation from the data."""
    solver = SOLVERS[name]
    times = solver.calls(grid, num_calls, {"theta": theta})[0].tolist()
    law = torch.zeros(9, dtype=torch.float64)
    law[-1] = 1
    width = solver.evals_per_step
    for k in range(0, num_calls, width):
        last = k + width == num_calls
        if isinstance(solver, ThetaSolver):
            law = law @ two_call_kernel(solver, theta, *times[k : k + 3], last=last)
        else:
            law = law @ one_call_kernel(name, *times[k : k + 2], last=last)
    final = law.view(3, 3)[:2, :2]
    assert abs(float(final.sum()) - 1) < 1e-9
    return 0.5 * float(np.abs(final.numpy() - DATA).sum())


@pytest.mark.parametrize("name", ["tweedie", "euler", "theta_rk2"])
def test_first_order(name: str) -> None:
    assert slope([error(name, M) for M in CALLS]) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("theta", [0.35, 0.5, 0.65])
def test_theta_trapezoidal_is_second_order_up_to_a_logarithm(theta: float) -> None:
    """Intensities go like 1 / t, so the steps near the data add up to h^2 log(1 / h)."""
    errors = [error("theta_trapezoidal", M, theta) / math.log(M) for M in CALLS]
    assert slope(errors) == pytest.approx(2, abs=0.1)


def slope(errors: list[float]) -> float:
    """Minus the slope of the log-error over the logarithm of the number of calls."""
    return -float(np.polyfit(np.log(CALLS), np.log(errors), 1)[0])


def test_second_order_pays_at_equal_calls() -> None:
    assert error("theta_trapezoidal", 64) < 0.2 * error("tweedie", 64)
    assert error("theta_rk2", 64) > error("tweedie", 64)
