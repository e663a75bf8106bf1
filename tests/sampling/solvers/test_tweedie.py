"""The analytic step is exact in the marginals, whatever the size of the step."""

import pytest
import torch

from lsd_sampler.sampling.corruptions import Absorbing, Gaussian, Uniform
from lsd_sampler.sampling.noise import LogLinear
from lsd_sampler.sampling.solvers import SOLVERS


DATA = torch.tensor([0.5, 0.3, 0.2, 0.0], dtype=torch.float64)


@pytest.mark.parametrize("s", [0.89, 0.4, 1e-3])
@pytest.mark.parametrize("corruption", [Absorbing(3, 4), Uniform(4), Gaussian(4, 2.0, 3.0)], ids=lambda c: c.name)
def test_one_step_leads_from_marginal_to_marginal(corruption: Absorbing | Uniform | Gaussian, s: float) -> None:
    noise, states = LogLinear(1e-3), torch.arange(4)
    before, after = (corruption.forward_law(states, float(noise.total(t))) for t in (0.9, s))
    joint = DATA[:, None] * before
    prediction = (joint / joint.sum(0)).T  # of the clean token, for each state
    law = SOLVERS["tweedie"].law(corruption, noise, prediction, states, 0.9, s, "logits")
    torch.testing.assert_close(joint.sum(0) @ law, DATA @ after, rtol=1e-5, atol=1e-7)
