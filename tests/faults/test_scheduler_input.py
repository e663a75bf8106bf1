"""What an LSDScheduler says to bad input."""

import math
from typing import Any

import pytest
import torch
from helpers.sampler_runs import EACH_COUNT, EACH_ORDER, MASK, generate, seeded, step_error, uneven

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.learned_numbers import LearnedSampler


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"solver": "tweedy"}, "`solver` must be one of .*'tweedy'.*Did you mean 'tweedie'"),
        ({"order": "haltom"}, "`order` must be one of .*'haltom'.*Did you mean 'halton'"),
        ({"schedule": "cosin"}, "`schedule` must be one of .*'cosin'.*Did you mean 'cosine'"),
        ({"count": "exakt"}, "`count` must be one of .*'exact'.*got 'exakt'"),
        ({"prediction_type": "logit"}, "`prediction_type` must be one of .*'logits'.*got 'logit'"),
        ({"noise_schedule": "loglinear"}, "`noise_schedule` must be one of .*'log_linear'.*got 'loglinear'"),
        ({"solver": None}, "`solver`"),
        ({"order": ["random"]}, "`order`"),
        ({"mask_token_id": -1}, "`mask_token_id`"),
        ({"mask_token_id": 1.5}, "`mask_token_id`"),
        ({"mask_token_id": True}, "`mask_token_id`"),
        ({"vocab_size": 0}, "`vocab_size`"),
        ({"noise_eps": 0.0}, "`noise_eps`"),
        ({"noise_eps": math.nan}, "`noise_eps`"),
        ({"noise_schedule": "geometric", "sigma_min": 2.0, "sigma_max": 1.0}, "`sigma_min`"),
        ({"sampling_eps": 0.0}, "`sampling_eps`"),
        ({"sampling_eps": 1.0}, "`sampling_eps`"),
        ({"confidence_temperature": -0.1}, "`confidence_temperature`"),
        ({"format_version": 99}, "`format_version` 99 is newer"),
        ({"learned": "yes"}, "`learned`"),
    ],
)
def test_bad_options(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LSDScheduler(**kwargs)


@pytest.mark.parametrize("steps", [0, -1, True, 2.0, "4", None])
@pytest.mark.parametrize("trained", [False, True])
def test_bad_numbers_of_steps(steps: Any, trained: bool) -> None:
    scheduler = LSDScheduler(mask_token_id=MASK)
    if trained:
        scheduler.set_learned_sampler(LearnedSampler(uneven(2).steps, step_error()))
    with pytest.raises(ValueError, match="`num_inference_steps` must be a positive integer"):
        scheduler.set_timesteps(steps)


def test_too_many_steps_for_the_precision_of_times() -> None:
    scheduler = LSDScheduler(mask_token_id=MASK, schedule="cosine")
    with pytest.raises(ValueError, match="`num_inference_steps` 20000 is too many"):
        scheduler.set_timesteps(20_000)


LOGITS, CANVAS = torch.zeros(2, 8, MASK), torch.full((2, 8), MASK)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"model_output": LOGITS[:1]}, "`model_output` and `sample` must have shapes"),
        ({"model_output": LOGITS[:, :7]}, "`model_output` and `sample` must have shapes"),
        ({"model_output": LOGITS[0]}, "`model_output` and `sample` must have shapes"),
        ({"sample": CANVAS[0]}, "`model_output` and `sample` must have shapes"),
        ({"model_output": LOGITS.view(2, 2, 4, MASK), "sample": CANVAS.view(2, 2, 4)}, "must have shapes"),
        ({"model_output": LOGITS.long()}, "`model_output` must be floating point"),
        ({"sample": CANVAS.int()}, "`sample` must hold int64"),
        ({"sample": CANVAS.float()}, "`sample` must hold int64"),
        ({"model_output": torch.zeros(2, 8, MASK + 2)}, "vocabulary mismatch"),
        ({"model_output": torch.zeros(2, 8, MASK - 1)}, "vocabulary mismatch"),
        ({"sample": torch.tensor([[MASK + 3] + [MASK] * 7] * 2)}, "`sample` holds token ids outside"),
        ({"sample": torch.tensor([[-1] + [MASK] * 7] * 2)}, "`sample` holds token ids outside"),
        ({"model_output": LOGITS * math.nan}, "`model_output` is unusable.*NaN"),
        ({"model_output": LOGITS + math.inf}, "`model_output` is unusable.*inf"),
        ({"model_output": LOGITS - math.inf}, "`model_output` is unusable.*all -inf"),
        ({"timestep": 0.7}, "`timestep` must be one of `timesteps`, got 0.7"),
        ({"timestep": math.nan}, "`timestep`"),
        ({"timestep": None}, "`timestep`"),
        ({"timestep": torch.tensor([1.0, 1.0])}, "`timestep`"),
        ({"temperature": -1.0}, "`temperature` must be >= 0"),
        ({"temperature": math.nan}, "`temperature` must be >= 0"),
        ({"generator": [seeded()]}, "`generator` has 1 entries, but the batch has 2 rows"),
        ({"generator": [seeded()] * 3}, "`generator` has 3 entries, but the batch has 2 rows"),
    ],
)
@EACH_ORDER
def test_bad_steps(order: str, kwargs: dict, message: str) -> None:
    scheduler = LSDScheduler(mask_token_id=MASK, vocab_size=MASK, order=order)
    scheduler.set_timesteps(2)
    with pytest.raises(ValueError, match=message):
        scheduler.step(**{"model_output": LOGITS, "timestep": 1.0, "sample": CANVAS, **kwargs})


@EACH_COUNT
@pytest.mark.parametrize("prediction_type", ["logits", "log_score"])
def test_one_bad_row_is_found_when_it_is_read(count: str, prediction_type: str) -> None:
    scheduler = LSDScheduler(mask_token_id=MASK, count=count, prediction_type=prediction_type)
    for bad, what in ((math.nan, "NaN"), (-math.inf, "all -inf")):
        logits = LOGITS.clone()
        logits[1, 3] = bad
        with pytest.raises(ValueError, match=f"`model_output` is unusable.*{what}"):
            generate(scheduler, lambda _, x=logits: x, CANVAS, 4)


def test_missing_pieces() -> None:
    with pytest.raises(ValueError, match="`mask_token_id` is not set"):
        scheduler = LSDScheduler()
        scheduler.set_timesteps(2)
        scheduler.step(LOGITS, 1.0, CANVAS)
    with pytest.raises(ValueError, match="`set_timesteps"):
        LSDScheduler(mask_token_id=MASK).step(LOGITS, 1.0, CANVAS)
    with pytest.raises(ValueError, match="`mask_token_id`.*vocabulary mismatch"):
        scheduler = LSDScheduler(mask_token_id=MASK + 1)
        scheduler.set_timesteps(2)
        scheduler.step(LOGITS, 1.0, torch.full((2, 8), MASK + 1))


@pytest.mark.parametrize("times", [-0.1, 1.1, math.nan, torch.tensor([0.5, 0.5, 0.5]), torch.tensor([])])
def test_bad_forward_times(times: Any) -> None:
    with pytest.raises(ValueError, match="`timesteps`"):
        LSDScheduler(mask_token_id=MASK).add_noise(CANVAS, times)
    with pytest.raises(ValueError, match="`mask_token_id`"):
        LSDScheduler().add_noise(CANVAS, 0.5)


def test_unusable_logits_are_noticed_even_when_nothing_is_revealed() -> None:
    scheduler = LSDScheduler(mask_token_id=MASK)
    scheduler.set_timesteps(100)
    with pytest.raises(ValueError, match="NaN"):
        scheduler.step(torch.full((1, 12, MASK), torch.nan), scheduler.timesteps[0], torch.full((1, 12), MASK))


def test_a_canvas_without_masks_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Most likely the mask is another one: without a word the canvas would stay as it is."""
    canvas = torch.full((2, 8), 7)
    for mask, told in ((3, True), (7, False)):
        caplog.clear()
        scheduler = LSDScheduler(mask_token_id=mask)
        scheduler.set_timesteps(2)
        for t in scheduler.timesteps:
            scheduler.step(torch.zeros(2, 8, 8), t, canvas)
        assert any(f"`mask_token_id` {mask}" in record.getMessage() for record in caplog.records) == told
