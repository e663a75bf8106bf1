"""Runs of a pipeline under other schedulers: its arguments for each sequence, and itself as it was afterwards."""

from typing import Any

import pytest
import torch

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline, load_denoiser
from lsd_sampler.sampling.pipeline_runs import PipelineRuns, check_call, scheduler_in_place


def chain() -> MaskedDiffusionPipeline:
    denoiser = load_denoiser("markov:V=4,L=6,seed=0")
    return MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config()))


def test_sequences_take_their_entries_in_turn_and_share_what_is_one() -> None:
    each = PipelineRuns(chain(), 0, {"prefix": [[1, 2], [3, 0]]}).arguments([1, 2, 5])
    assert each["prefix"] == [[3, 0], [1, 2], [3, 0]]
    shared = PipelineRuns(chain(), 0, {"prefix": [1, 2]}).arguments([1, 2, 5])
    assert shared["prefix"] == [1, 2] and shared["num_samples"] == 3


def test_the_noise_of_a_sequence_does_not_depend_on_its_batch() -> None:
    runs = PipelineRuns(chain(), 7, {})
    draws = [[torch.rand(3, generator=g).tolist() for g in runs.generators(batch)] for batch in ([0, 1, 2], [2])]
    assert draws[0][2] == draws[1][0] != draws[0][1]


def test_a_pipeline_is_as_it_was_even_after_a_failure() -> None:
    pipeline = chain()
    own = pipeline.scheduler
    pipeline.denoiser.train()
    other = LSDScheduler(mask_token_id=4)
    with pytest.raises(RuntimeError, match="half-way"), scheduler_in_place(pipeline, other):
        assert pipeline.scheduler is other and not pipeline.denoiser.training
        raise RuntimeError("half-way")
    assert pipeline.scheduler is own and pipeline.denoiser.training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"temprature": 1.0}, "Did you mean .temperature."), ({"generator": None}, "`generator` is set .* leave it")],
)
def test_arguments_that_a_pipeline_cannot_take_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_call(MaskedDiffusionPipeline, arguments)
