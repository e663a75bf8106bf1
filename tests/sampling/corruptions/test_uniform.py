"""Uniform corruption: every token goes to each state at the same rate."""

import numpy as np
import pytest
import torch
from helpers.sampler_runs import seeded
from scipy.linalg import expm

from lsd_sampler.sampling.corruptions import Uniform


@pytest.mark.parametrize("num_states", [2, 3, 7])
def test_the_law_is_the_exponential_of_equal_rates(num_states: int) -> None:
    rates = np.full((num_states, num_states), 1 / num_states) - np.eye(num_states)
    law = Uniform(num_states).forward_law(torch.arange(num_states), 0.8)
    torch.testing.assert_close(law, torch.from_numpy(expm(0.8 * rates)))


@pytest.mark.parametrize("x", [0, 2])
def test_without_noise_the_law_is_what_was_predicted(x: int) -> None:
    prediction = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    law = Uniform(3).posterior(prediction, torch.tensor([x]), 0.9, 0.0, "logits")
    torch.testing.assert_close(law, prediction)


def test_no_noise_moves_nothing() -> None:
    tokens = torch.randint(5, (2, 50), generator=seeded())
    assert torch.equal(Uniform(5).corrupt(tokens, torch.zeros(2), seeded()), tokens)
