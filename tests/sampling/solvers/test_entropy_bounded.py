"""The entropy-bounded sampler adapts to each sequence, and calls no network for complete ones."""

from typing import Any

import pytest
import torch

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline, load_denoiser


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chain(solver: str, length: int = 12, seed: int = 0, **config: Any) -> MaskedDiffusionPipeline:
    denoiser = load_denoiser(f"markov:V=4,L={length},seed={seed}")
    pipeline = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config(), solver=solver, **config))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("time_conditioned", [False, True])
def test_sequences_that_are_complete_need_no_call(time_conditioned: bool) -> None:
    pipeline = chain("entropy_bounded", solver_options={"gamma": 3.0})
    pipeline.denoiser.time_conditioned = time_conditioned
    steps: list[torch.Tensor] = [torch.full((16, 12), 4)]
    out = pipeline(
        num_samples=16,
        num_inference_steps=12,
        generator=seeded(),
        callback_on_step_end=lambda pipeline, k, t, tensors: steps.append(tensors["sample"]),
    )
    needed = sum((sample == 4).any(1).long() for sample in steps[:-1])
    assert torch.equal(out.sequence_calls, needed) and 1 < int(needed.max()) < 12
    assert out.network_calls == int(needed.max())
