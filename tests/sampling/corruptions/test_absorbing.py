"""Absorbing corruption: tokens are masked or kept, and what is known stays on the way back."""

import math

import torch
from helpers.sampler_runs import seeded

from lsd_sampler.sampling.corruptions import Absorbing


CORRUPTION, MASK = Absorbing(3, 4), 3
PREDICTION = torch.tensor([[0.5, 0.3, 0.2, 0.0]], dtype=torch.float64)


def test_a_token_is_kept_or_masked() -> None:
    law = CORRUPTION.forward_law(torch.tensor([1, MASK]), 0.7)
    kept = math.exp(-0.7)
    torch.testing.assert_close(law, torch.tensor([[0, kept, 0, 1 - kept], [0, 0, 0, 1]], dtype=torch.float64))
    assert CORRUPTION.prior().tolist() == [0, 0, 0, 1]
    tokens = torch.randint(3, (2, 50), generator=seeded())
    assert torch.equal(CORRUPTION.corrupt(tokens, torch.zeros(2), seeded()), tokens)
    assert bool((CORRUPTION.corrupt(tokens, torch.full((2,), 100.0), seeded()) == MASK).all())


def test_without_noise_a_mask_has_the_predicted_law_and_a_token_stays() -> None:
    for total_next in (0.0, 0.4):
        law = CORRUPTION.posterior(PREDICTION.expand(2, 4), torch.tensor([MASK, 1]), 0.9, total_next, "logits")
        masked = math.expm1(-total_next) / math.expm1(-0.9)
        torch.testing.assert_close(law[:1], PREDICTION * (1 - masked) + masked * CORRUPTION.prior())
        assert law[1].tolist() == [0, 1, 0, 0]


def test_a_normalised_prediction_is_the_score_up_to_a_factor_of_time() -> None:
    """The factor is the odds of being known, `alpha / (1 - alpha)`."""
    score = CORRUPTION.score(PREDICTION, torch.tensor([MASK]), 0.9, "logits")
    alpha = math.exp(-0.9)
    torch.testing.assert_close(score[0, :MASK], PREDICTION[0, :MASK] * alpha / (1 - alpha))
    assert float(score[0, MASK]) == 1
