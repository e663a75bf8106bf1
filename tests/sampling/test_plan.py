"""The numbers of the steps: how many positions are masked before each, and how likely it is that one is revealed."""

import pytest
import torch
from helpers.sampler_runs import MASK, fixed_model, generate, seeded

from lsd_sampler import LSDScheduler


def test_exact_counts_leave_the_share_that_the_plan_says() -> None:
    scheduler, canvas = LSDScheduler(mask_token_id=MASK, schedule="cosine"), torch.full((2, 1000), MASK)
    path = generate(scheduler, fixed_model(canvas, MASK), canvas, 6, generator=seeded())
    for k, sample in enumerate(path[:-1]):
        assert int((sample == MASK).sum(1)[0]) == pytest.approx(1000 * scheduler.plan.masked_before(k), abs=1)
    assert bool((path[-1] != MASK).all())


@pytest.mark.parametrize("noise", ["log_linear", "geometric"])
def test_tweedie_keeps_the_share_of_masks_of_the_forward_process(noise: str) -> None:
    """From a canvas that is all masked: divided by the share at the first time."""
    scheduler = LSDScheduler(mask_token_id=MASK, count="bernoulli", noise_schedule=noise)
    scheduler.set_timesteps(5)
    plan = scheduler.plan
    assert plan.masked_before(0) == 1 and plan.reveal_probabilities[-1] == 1
    for k in range(5):
        t = plan.interval(k)[0]
        share = float(plan.noise.masked(t) / plan.noise.masked(plan.interval(0)[0]))
        assert plan.masked_before(k) == pytest.approx(share, rel=1e-6)
        assert plan.odds(t) == pytest.approx(float(plan.noise.alpha(t)) / float(plan.noise.masked(t)))


def test_the_intervals_of_steps_meet() -> None:
    scheduler = LSDScheduler(mask_token_id=MASK)
    scheduler.set_timesteps(4)
    intervals = [scheduler.plan.interval(k) for k in range(4)]
    assert [s for _, s in intervals[:-1]] == [t for t, _ in intervals[1:]] and all(t > s for t, s in intervals)


def test_an_unknown_prediction_type_is_named() -> None:
    with pytest.raises(ValueError, match="`prediction_type`.*'log_score'"):
        LSDScheduler(mask_token_id=MASK, prediction_type="score")
