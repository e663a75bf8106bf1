"""Schedulers that watch a pipeline: replays are exact, and runs that cannot be used are refused."""

from typing import Any

import pytest
import torch
from helpers.small_distillations import learn, seen_by
from helpers.tiny_answerers import tiny_answerer

from lsd_sampler import DistillConfig, distill
from lsd_sampler.denoisers import countdown
from lsd_sampler.training.recording import Recorder, StepErrorRecorder, TeacherRecorder


@pytest.mark.parametrize("order", ["halton", "random"])
@pytest.mark.parametrize("num_states", [128, 6])
def test_replay_sees_the_canvases_of_the_teacher(order: str, num_states: int) -> None:
    chain, after = countdown(8, 16), []
    canvases = seen_by(chain)

    def keep(pipe: Any, step: int, t: Any, tensors: dict[str, torch.Tensor]) -> None:
        after.append(tensors["sample"])

    call = {"callback_on_step_end": keep}
    scheduler = learn(chain, call, order=order, nfe=(2,), num_sequences=5, num_states=num_states)
    states = scheduler.learned_sampler.step_error.grid.tolist()
    teacher, replay = canvases[1:17], canvases[17:]  # the first call counts the masked positions
    assert len(replay) == len(states) == min(num_states, 16) + (num_states < 16) * (len(states) - num_states)
    known = [(canvas != chain.mask_token_id).sum(1).tolist() for canvas in teacher]
    assert known == [[s] * 5 for s in range(16)]
    for s, canvas in zip(states, replay, strict=True):
        assert torch.equal(canvas, teacher[s])
    assert torch.equal(after[-1], after[16])
    assert not (after[-1] == chain.mask_token_id).any()


def test_replay_is_exact_for_bernoulli_counts_and_image_canvases() -> None:
    """The replay reveals by rank what the teacher ended with, however the teacher counted, on any shape of canvas."""
    noise = {"mask_token_id": 5, "vocab_size": 5, "order": "halton", "count": "bernoulli"}
    teacher, recorder = TeacherRecorder(**noise), StepErrorRecorder(**noise)
    logits = torch.randn(3, 5, 4, 6)

    def generate(scheduler: Recorder, steps: int) -> torch.Tensor:
        scheduler.begin(steps)
        scheduler.set_timesteps(steps)
        sample = torch.full((3, 4, 6), 5)
        generators = [torch.Generator().manual_seed(i) for i in range(3)]
        for t in scheduler.timesteps:
            sample = scheduler.step(logits, t, sample, generator=generators).prev_sample
        return sample

    final = generate(teacher, 7)
    recorder.replay(torch.tensor([0, 3, 11]), teacher.canvases, 24)
    assert torch.equal(generate(recorder, 3), final)
    assert recorder.seen_GL.sum(1).tolist() == [3 * 24, 3 * 21, 3 * 13]


def test_a_call_that_leaves_nothing_to_do_is_refused() -> None:
    with pytest.raises(ValueError, match="no masked position"):
        learn(countdown(4, 4), {"input_ids": [[3, 2, 1, 0]]}, nfe=(2,))


def test_distilling_at_another_temperature_is_refused() -> None:
    with pytest.raises(ValueError, match="`temperature` 1"):
        learn(countdown(4, 8), {"temperature": 0.5}, nfe=(2,))


@pytest.mark.parametrize(("method", "order"), [("path_kl", "halton"), ("forced_kl", "adaptive")])
@pytest.mark.parametrize("cache", ["none", "dual"])
def test_answers_in_blocks(method: str, order: str, cache: str) -> None:
    """A sampler is learned for a block, from each block of each answer, and `nfe` counts its calls."""
    pipe = tiny_answerer("llada", order=order)
    call: dict[str, Any] = {"prompt": ["a b c", "d"], "max_new_tokens": 8, "block_length": 4, "cache": cache}
    fewer = {"search_evaluations": 500} if method == "forced_kl" else {}
    config = DistillConfig(
        method=method, order=order, nfe=(2,), num_sequences=4, teacher_steps=4, batch_size=2, **fewer
    )
    pipe.scheduler = distill(pipe, config, **call)
    out = pipe(**call, num_inference_steps=2 * 2)
    assert out.network_calls == 4
    assert not (out.sequences == pipe.denoiser.mask_token_id).any()


def test_the_costs_of_a_cache_are_those_of_what_it_kept() -> None:
    """What a cached call does not see costs nats (the teacher makes one step, which no cache changes)."""
    tables = []
    for cache in ("none", "dual"):
        pipe = tiny_answerer("llada", order="halton")
        config = DistillConfig(method="path_kl", nfe=(1,), num_sequences=4, teacher_steps=1, batch_size=2)
        call: dict[str, Any] = {"prompt": "a b c", "max_new_tokens": 8, "block_length": 8, "cache": cache}
        tables.append(distill(pipe, config, **call).learned_sampler.step_error)
    (plain, cached) = (table.table for table in tables if table is not None)
    assert not torch.allclose(plain, cached)


def test_a_cache_of_shifted_rows_is_refused() -> None:
    call: dict[str, Any] = {"prompt": "a b c", "max_new_tokens": 8, "block_length": 4, "cache": "dual"}
    with pytest.raises(ValueError, match="shifted make a first step of their own: leave it out"):
        distill(tiny_answerer("dream"), DistillConfig(method="path_kl", nfe=(2,), num_sequences=4), **call)
