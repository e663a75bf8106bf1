"""Gaussian corruption: the official rates and transitions, and the rounding of its scores."""

import itertools

import numpy as np
import pytest
import torch
from helpers.golden_files import fixture_path
from safetensors.torch import load_file
from scipy.linalg import expm

from lsd_sampler.sampling.corruptions import Gaussian
from lsd_sampler.sampling.noise import Exponential


def discretised_gaussian(num_states: int, middle: float, q_sigma: float) -> torch.Tensor:
    """Probabilities of the levels 1 to S."""
    level = torch.arange(1, num_states + 1).double()
    return (-((level - middle) ** 2) / (2 * q_sigma**2)).softmax(0)


def gaussian_base_rate(num_states: int, rate_sigma: float, q_sigma: float) -> np.ndarray:
    """Entry by entry, in the official order: the last digits matter to eigenvectors."""
    S, rate = num_states, np.zeros((num_states, num_states))
    by_distance = np.exp(-(np.arange(S) ** 2) / rate_sigma**2)
    for i in range(S):
        inwards = range(i + 1, S - i) if i < S // 2 else range(S - i, i) if i > S // 2 else ()
        for j in inwards:
            rate[i, j] = by_distance[abs(j - i) - 1]
    for i, j in itertools.product(range(S), repeat=2):
        if rate[j, i] > 0:
            energy = (j + 1) ** 2 - (i + 1) ** 2 + S * (i - j)
            rate[i, j] = rate[j, i] * np.exp(-energy / (2 * q_sigma**2))
    return rate - np.diag(rate.sum(1))


def test_official_gaussian_rates() -> None:
    import yaml

    config = yaml.safe_load(fixture_path("ctmc_tauldr", "config.yaml").read_text())
    golden, model = load_file(fixture_path("ctmc_tauldr", "expected.safetensors")), config["model"]
    corruption = Gaussian(config["data"]["S"], model["rate_sigma"], model["Q_sigma"])
    noise = Exponential(model["time_base"], model["time_exponential"])
    torch.testing.assert_close(corruption.base_rate.float(), golden["base_rate"], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(corruption.prior().float(), golden["initial_probs"], rtol=1e-4, atol=1e-7)
    for t, rate, transition in zip(golden["t"].tolist(), golden["rate"], golden["transition"], strict=True):
        ours = (noise.rate(t) * corruption.base_rate).float()
        torch.testing.assert_close(ours, rate, rtol=1e-4, atol=1e-6)
        x = torch.arange(corruption.num_states)
        law = corruption.forward_law(x, float(noise.total(t))).float()
        torch.testing.assert_close(law, transition, rtol=0, atol=2e-5)


@pytest.mark.parametrize("num_states", [2, 3, 5, 8, 13])
def test_gaussian_rates_of_any_number_of_levels(num_states: int) -> None:
    """The stationary law has its middle at S / 2, the law at `t = 1` at the integer half."""
    corruption = Gaussian(num_states, 3.0, 6.0)
    ours = corruption.base_rate
    torch.testing.assert_close(ours, torch.from_numpy(gaussian_base_rate(num_states, 3.0, 6.0)), rtol=1e-12, atol=0)
    stationary = discretised_gaussian(num_states, num_states / 2, 6.0)
    flow = stationary[:, None] * ours
    torch.testing.assert_close(flow, flow.T, rtol=1e-10, atol=1e-14)
    assert bool((ours[~torch.eye(num_states, dtype=torch.bool)] >= 0).all())
    torch.testing.assert_close(corruption.prior(), discretised_gaussian(num_states, num_states // 2, 6.0))


@pytest.mark.parametrize(("num_states", "rate_sigma", "q_sigma"), [(16, 2.0, 8.0), (31, 4.0, 40.0), (256, 6.0, 512.0)])
@pytest.mark.parametrize("t", [0.01, 0.1, 0.5])
def test_official_rounding_of_gaussian_scores(num_states: int, rate_sigma: float, q_sigma: float, t: float) -> None:
    """The official transition is numpy's eigenvectors in float32. What it has of very small probabilities is rounding,
    which scores divide by.
    """
    decomposition = np.linalg.eig(gaussian_base_rate(num_states, rate_sigma, q_sigma))
    values, vectors = (torch.from_numpy(x).float() for x in decomposition)
    inverse = torch.from_numpy(np.linalg.inv(decomposition[1])).float()
    total = 3.0 * 100.0 ** torch.tensor(t) - 3.0
    law = vectors @ torch.diag(torch.exp(total * values)) @ inverse
    law[law < 1e-8] = 0
    p = torch.linspace(-3, 3, num_states).softmax(0)
    expected = (p / (law.T + 1e-9)) @ law
    corruption, x = Gaussian(num_states, rate_sigma, q_sigma), torch.arange(num_states)
    total_noise = float(Exponential(3.0, 100.0).total(t))
    prediction = p.double().expand(num_states, -1)
    ours = corruption.score(prediction, x, total_noise, "logits")
    off = ~torch.eye(num_states, dtype=torch.bool)
    torch.testing.assert_close(ours[off], expected.double()[off], rtol=2e-4, atol=1e-5)
    # forwards, nothing is rounded
    exact = torch.from_numpy(expm(total_noise * gaussian_base_rate(num_states, rate_sigma, q_sigma)))
    torch.testing.assert_close(corruption.forward_law(x, total_noise), exact, rtol=1e-9, atol=2e-8)


def test_gaussian_scores_where_float32_has_no_decomposition() -> None:
    """They are of the exact law, then."""
    corruption, x = Gaussian(20, 2.0, 1.0), torch.arange(20)
    law = corruption.forward_law(x, 1.5)
    p = torch.linspace(-3, 3, 20).double().softmax(0)
    off = ~torch.eye(20, dtype=torch.bool)
    score = corruption.score(p.expand(20, -1), x, 1.5, "logits")
    torch.testing.assert_close(score[off], ((p / (law.T + 1e-9)) @ law)[off])
