"""Transition times: their laws by the formulas of the authors' code, and which calls they ask for."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.goodness_of_fit import p_value

from lsd_sampler.sampling.draws import row_generators
from lsd_sampler.sampling.transition_times import draw_continuous_times, draw_times, times_of_calls


OPTIONS = {"weights": "beta", "alpha": 5.0, "beta": 3.0, "training_steps": 50}


def linear_lambda(T: int) -> list[float]:
    """Probabilities of the times 0, 1, ...: from T - 1 down, column by column."""
    law = [0.0] * T
    for k in range(T - 1, 0, -1):
        law[k] = (1 - (k + 1) / T) * math.prod((j + 1) / T for j in range(k + 1, T))
    return [1 - sum(law), *law[1:]]


def cosine(T: int) -> list[float]:
    def share(k: int) -> float:
        return math.cos((k / T + 0.08) / 1.08 * math.pi / 2) ** 2

    return [0.0, *(share(k) - share(k + 1) for k in range(T))]


def beta_density(T: int) -> list[float]:
    points = [i / (T - 1) for i in range(T)]
    return [0.0, *(p**4 * (1 - p) ** 2 for p in points)]


def beta_mass(T: int) -> list[float]:
    def below(p: float) -> float:  # of Beta(5, 3), by the binomial law
        return sum(math.comb(7, j) * p**j * (1 - p) ** (7 - j) for j in range(5, 8))

    return [below((i + 1) / T) - below(i / T) for i in range(T)]


@pytest.mark.parametrize(
    ("weights", "T", "law"),
    [
        ("linear_alpha", 12, lambda T: [0.0] + [1.0] * T),
        ("linear_lambda", 12, linear_lambda),
        ("cosine", 12, cosine),
        ("beta", 25, beta_density),
        ("beta", 24, beta_mass),  # below half of the steps of training
    ],
)
def test_laws_of_times(weights: str, T: int, law: Callable[[int], list[float]]) -> None:
    """False alarms: 1 in 10,000 for each law, on a fixed seed."""
    times = draw_times(4, 5000, T, {**OPTIONS, "weights": weights}, torch.Generator().manual_seed(0)).flatten()
    expected = np.array(law(T))
    counts = torch.bincount(times, minlength=len(expected)).numpy()
    assert p_value(counts, expected / expected.sum()) > 1e-4


def test_continuous_times_have_the_moments_of_the_beta_law() -> None:
    """Mean and variance of 20,000 draws, within 5 standard errors."""
    times = draw_continuous_times(2, 10_000, 17.0, 4.0, torch.Generator().manual_seed(1)).double()
    mean, variance = 17 / 21, 17 * 4 / (21**2 * 22)
    assert abs(float(times.mean()) - mean) < 5 * math.sqrt(variance / 20_000)
    assert abs(float(times.var()) - variance) < 0.05 * variance


@pytest.mark.parametrize("continuous", [False, True])
def test_a_row_has_the_times_of_its_own_generator(continuous: bool) -> None:
    def draw(rows: list[int]) -> torch.Tensor:
        if continuous:
            return draw_continuous_times(len(rows), 7, 5.0, 3.0, row_generators(0, rows))
        return draw_times(len(rows), 7, 50, OPTIONS, row_generators(0, rows))

    assert torch.equal(draw([3, 1])[1], draw([1])[0])
    assert not torch.equal(draw([3, 1])[0], draw([1])[0])


def test_calls_are_at_distinct_times_largest_first() -> None:
    times = torch.tensor([[3, 9, 3, 0], [7, 7, -1, -1]])
    assert times_of_calls(times, distinct=True).tolist() == [[9, 3, 0], [7, -1, -1]]
    assert times_of_calls(times, distinct=False).tolist() == [[9, 3, 3, 0], [7, 7, -1, -1]]
