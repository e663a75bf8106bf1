"""Generation from prompts: the laws of blocks, batches, caches and early stops, and what a user sees of it."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.tiny_answerers import EOS, FAMILIES, MASK, tiny_answerer
from hypothesis import given, settings
from hypothesis import strategies as st

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.denoisers.block_generation import steps_of_blocks
from lsd_sampler.sampling.dependence import Dependence
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
from lsd_sampler.sampling.orders import ORDERS
from lsd_sampler.sampling.position_choice import PositionChoice
from lsd_sampler.sampling.solvers import SOLVERS


# ---- laws ----

SAMPLERS: dict[str, dict[str, Any]] = {
    **{order: {"order": order} for order in ORDERS.names()},
    "bernoulli": {"count": "bernoulli"},
    "llada": {"order": "confidence", "confidence_temperature": 0.0, "count": "llada"},
    "dream": {"order": "entropy", "confidence_temperature": 0.0, "count": "dream", "certainty": "tempered"},
    "threshold": {"solver": "fast_dllm_threshold", "solver_options": {"threshold": 0.5}},
    "factor": {"solver": "fast_dllm_factor"},
    "entropy_bounded": {"solver": "entropy_bounded", "solver_options": {"gamma": 1.5}},
    **{solver: {"solver": solver} for solver in SOLVERS.names()},
}
PIPES: dict[str, MaskedDiffusionPipeline] = {}


def pipe_of(family: str, sampler: str) -> MaskedDiffusionPipeline:
    if family not in PIPES:
        PIPES[family] = tiny_answerer(family)
    pipe = PIPES[family]
    pipe.scheduler = LSDScheduler(**{**pipe.denoiser.scheduler_config(), **SAMPLERS[sampler]})
    return pipe


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


families = st.sampled_from(FAMILIES)
prompts_of = st.lists(st.lists(st.integers(5, MASK - 1), max_size=9), min_size=1, max_size=4)
calls = st.fixed_dictionaries(
    {
        "max_new_tokens": st.integers(1, 14),
        "block_length": st.one_of(st.none(), st.integers(1, 9)),
        "cache": st.sampled_from(["none", "prefix", "dual"]),
        "guidance_scale": st.sampled_from([None, 1.5]),
        "temperature": st.sampled_from([0.0, 1.0]),
        "eos_early_stop": st.booleans(),
    }
)  # fmt: skip
examples = settings(max_examples=50, deadline=None, derandomize=True)


def not_tied(family: str, sampler: str, prompts: list[list[int]]) -> list[list[int]]:
    """Without a token that is given, all masks look alike to these networks. Which of them is the surest is then a
    matter of rounding, so there is a token if that is asked.
    """
    looks = sampler not in ("random", "halton", "halton_maskgit", "adaptive", "bernoulli", "euler", "tweedie")
    return [prompt or [5] for prompt in prompts] if looks and family != "dream framed" else prompts


@examples
@given(families, st.sampled_from(sorted(SAMPLERS)), prompts_of, calls, st.one_of(st.none(), st.integers(14, 30)))
def test_each_row_is_the_row_alone(
    family: str, sampler: str, prompts: list[list[int]], call: dict[str, Any], steps: int | None
) -> None:
    """Tokens, texts and calls, in float32. No mask is left, and the prompts are as they were."""
    pipe, num, prompts = pipe_of(family, sampler), call["max_new_tokens"], not_tied(family, sampler, prompts)
    out = pipe(prompt=prompts, num_inference_steps=steps, generator=seeded(*range(len(prompts))), **call)
    assert not (out.sequences == MASK).any()
    for i, prompt in enumerate(prompts):
        alone = pipe(prompt=[prompt], num_inference_steps=steps, generator=seeded(i), **call)
        assert alone.sequences[0, : len(prompt)].tolist() == prompt
        assert out.sequences[i].tolist()[-num - len(prompt) :] == alone.sequences[0].tolist()
        assert out.texts[i] == alone.texts[0]
        assert out.sequence_calls[i] == alone.sequence_calls[0] == alone.network_calls


@examples
@given(families, st.sampled_from(["llada", "halton", "threshold", "dream"]), prompts_of, calls)
def test_an_early_stop_changes_no_text(
    family: str, sampler: str, prompts: list[list[int]], call: dict[str, Any]
) -> None:
    """What stands before the end of a text is what it is without an early stop, for no more calls. After it nothing
    but the token that ended it.
    """
    pipe, ends, num = pipe_of(family, sampler), [EOS, 6, 7, 8, 9, 10], call["max_new_tokens"]
    prompts = not_tied(family, sampler, prompts)
    full, early = (
        pipe(
            prompt=prompts,
            generator=seeded(*range(len(prompts))),
            **(call | {"eos_token_id": ends, "eos_early_stop": x}),
        )
        for x in (False, True)
    )
    assert early.texts == full.texts
    assert bool((early.sequence_calls <= full.sequence_calls).all())
    for row, unstopped in zip(early.sequences[:, -num:].tolist(), full.sequences[:, -num:].tolist(), strict=True):
        end = next((i for i, token in enumerate(row) if token in ends), num)
        assert row[:end] == unstopped[:end]
        assert end == num or {*row[end + 1 :]} <= {row[end]}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_a_cache_that_is_always_fresh_changes_nothing(family: str, cache: str) -> None:
    """With one step for each block, nothing is computed from what was kept."""
    for sampler in ("halton", "confidence"):
        pipe = pipe_of(family, sampler)
        call: dict[str, Any] = {"prompt": [[5, 6, 7], [8]], "max_new_tokens": 9, "block_length": 4, "temperature": 0.0}
        plain, cached = (
            pipe(**call, num_inference_steps=3, generator=seeded(0, 1), cache=kind) for kind in ("none", cache)
        )
        assert torch.equal(plain.sequences, cached.sequences)
        assert plain.network_calls == cached.network_calls == 3


# ---- what a user sees of it ----


def test_callbacks_after_steps_and_blocks() -> None:
    pipe = pipe_of("llada", "llada")
    steps: list[tuple[int, int]] = []
    blocks: list[tuple[int, list[list[int]]]] = []

    def on_step(_: Any, step: int, t: torch.Tensor, given: dict[str, torch.Tensor]) -> None:
        steps.append((step, int((given["sample"] == MASK).sum())))

    def on_block(given_pipe: Any, block: int, given: dict[str, torch.Tensor]) -> None:
        assert given_pipe is pipe and not (given["block_tokens"] == MASK).any()
        assert int((given["sample"] == MASK).sum()) == [4, 1, 0][block]
        blocks.append((block, given["block_tokens"].tolist()))

    out = pipe(
        prompt=[5, 6], max_new_tokens=7, block_length=3, num_inference_steps=8, temperature=0.0,
        callback_on_step_end=on_step, callback_on_block_end=on_block,
    )  # fmt: skip
    assert steps == [(0, 6), (1, 5), (2, 4), (3, 3), (4, 2), (5, 1), (6, 0), (7, 0)]
    assert [block for block, _ in blocks] == [0, 1, 2]
    assert [i for _, tokens in blocks for i in tokens[0]] == out.sequences[0, 2:].tolist()


@pytest.mark.parametrize("when", ["step", "block"])
def test_an_interrupted_generation_ends(when: str) -> None:
    pipe = pipe_of("llada", "llada")

    def stop(given_pipe: Any, number: int, *_: Any) -> None:
        given_pipe._interrupt = number == 1

    call: dict[str, Any] = {f"callback_on_{when}_end": stop}
    out = pipe(prompt=[5, 6], max_new_tokens=9, block_length=3, num_inference_steps=9, **call)
    assert int((out.sequences == MASK).sum()) == {"step": 7, "block": 3}[when]
    assert not (pipe(prompt=[5, 6], max_new_tokens=9).sequences == MASK).any()


def test_a_callback_may_change_the_canvas() -> None:
    """What it sets stays, and the network sees it."""
    pipe = pipe_of("llada", "llada")

    def change(_: Any, step: int, t: torch.Tensor, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        sample = given["sample"].clone()
        sample[:, -1] = 9
        return {"sample": sample}

    call: dict[str, Any] = {"prompt": [5, 6], "max_new_tokens": 6, "block_length": 3, "temperature": 0.0}
    changed = pipe(**call, callback_on_step_end=change).sequences
    assert changed[0, -1] == 9 and not (changed == MASK).any()


def test_steps_are_shared_among_blocks() -> None:
    blocks = [slice(2, 6), slice(6, 10), slice(10, 11)]
    assert steps_of_blocks(None, blocks, None) == [4, 4, 1]
    assert steps_of_blocks(None, blocks, 8) == [8, 8, 8]
    assert steps_of_blocks(12, blocks, 8) == [4, 4, 4]
    assert steps_of_blocks(11, blocks, None) == [4, 4, 3]
    with pytest.raises(ValueError, match="2 are too few for 3 blocks"):
        steps_of_blocks(2, blocks, None)


def test_later_blocks_are_masks_to_the_network() -> None:
    """Not absent: with them the first block is another than on a canvas that ends with it."""
    pipe = pipe_of("llada", "llada")
    call: dict[str, Any] = {
        "prompt": [[5, 6, 7, 8], [9, 8, 7, 6], [5, 5, 9, 9]],
        "block_length": 4,
        "temperature": 0.0,
    }
    short, long = (pipe(**call, max_new_tokens=num).sequences[:, 4:8] for num in (4, 20))
    assert not torch.equal(short, long)


@pytest.mark.parametrize("order", ["probability", "margin", "entropy"])
def test_alg_temp_is_a_gibbs_choice(order: str) -> None:
    """Dream's: the first position by `softmax(certainty / alg_temp)`. Chi-square, false alarms once in 1e4."""
    pipe, num, alg_temp = tiny_answerer("dream", order=order, count="llada", certainty="tempered"), 4000, 0.3
    first: list[torch.Tensor] = []

    def record(given_pipe: Any, step: int, t: torch.Tensor, given: dict[str, torch.Tensor]) -> None:
        first.append((given["sample"][:, 3:] != MASK).double().sum(0))
        given_pipe._interrupt = True

    generator = torch.Generator().manual_seed(0)
    pipe(
        prompt=[5, 6, 7], max_new_tokens=4, num_samples=num, num_inference_steps=4, temperature=0.0, alg_temp=alg_temp,
        callback_on_step_end=record, generator=generator,
    )  # fmt: skip
    with torch.no_grad():
        p = pipe.denoiser(torch.tensor([[5, 6, 7, *[MASK] * 4]]))[0, 3:, :MASK].softmax(-1)
    top = p.topk(2, dim=-1).values
    by_order = {"probability": top[:, 0], "margin": top[:, 0] - top[:, 1], "entropy": -torch.special.entr(p).sum(-1)}
    expected = num * (by_order[order].double() / alg_temp).softmax(0)
    assert float(((first[0] - expected) ** 2 / expected).sum()) < 21.1  # 3 degrees of freedom


def test_learned_steps_hold_in_each_block() -> None:
    """The numbers of a learned sampler, by default those for the most steps that it learned."""
    pipe = pipe_of("llada", "halton")
    grid = torch.tensor([1.0, 0.5, 1e-4], dtype=torch.float64)
    pipe.scheduler.set_learned_sampler(LearnedSampler({2: LearnedSteps.plain(grid)}))
    masks: list[int] = []

    def record(_: Any, step: int, t: torch.Tensor, given: dict[str, torch.Tensor]) -> None:
        masks.append(int((given["sample"] == MASK).sum()))

    pipe(prompt=[5], max_new_tokens=8, block_length=4, callback_on_step_end=record)
    assert masks == [6, 4, 2, 0]
    call: dict[str, Any] = {"prompt": [5], "max_new_tokens": 8, "block_length": 4, "callback_on_step_end": record}
    with pytest.raises(ValueError, match="A block of 4 tokens in 1 steps cannot be sampled: .*num_inference_steps"):
        pipe(**call, num_inference_steps=3)  # which the first block could do
    assert len(masks) == 4


def test_what_was_learned_for_longer_blocks_is_refused_before_any_call() -> None:
    """Dependence between the positions of a block of 4, and a last block of 2."""
    pipe = pipe_of("llada", "adaptive")
    weights = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]).double()
    choice = PositionChoice(weights, torch.tensor(0.0).double(), torch.ones(1).double())
    steps = replace(LearnedSteps.plain(torch.tensor([1.0, 1e-4]).double()), choice=choice)
    dependence = Dependence(torch.zeros(1, 4, 4, dtype=torch.float64), "matrix")
    pipe.scheduler.set_learned_sampler(LearnedSampler({1: steps}, dependence=dependence))
    assert pipe(prompt=[5], max_new_tokens=8, block_length=4).network_calls == 2
    steps_seen: list[int] = []
    with pytest.raises(
        ValueError, match="A block of 2 tokens in 1 steps cannot be sampled: .*learned for canvases of 4"
    ):
        pipe(
            prompt=[5], max_new_tokens=10, block_length=4,
            callback_on_step_end=lambda _, step, *given: steps_seen.append(step),
        )  # fmt: skip
    assert steps_seen == []


def test_bfloat16() -> None:
    """No mask is left, and what is given stays."""
    for family in FAMILIES:
        pipe = tiny_answerer(family, **SAMPLERS["threshold"])
        pipe.denoiser.to(torch.bfloat16)
        out = pipe(prompt=[[5, 6, 7], [8]], max_new_tokens=9, block_length=4, cache="dual", guidance_scale=0.5)
        assert not (out.sequences == MASK).any()
        assert out.sequences[:, :3].tolist() == [[5, 6, 7], [0, 0, 8]]


@pytest.mark.gpu
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_accelerator_gives_the_same_tokens(family: str, cache: str) -> None:
    """In float64, with the same generators."""
    pipe = tiny_answerer(family, **SAMPLERS["threshold"])
    pipe.denoiser.to(torch.float64)
    call: dict[str, Any] = {"prompt": [[5, 6, 7], [8]], "max_new_tokens": 9, "block_length": 4, "guidance_scale": 0.5}
    on_cpu = pipe(**call, cache=cache, eos_early_stop=True, generator=seeded(0, 1))
    pipe.to("cuda")
    on_gpu = pipe(**call, cache=cache, eos_early_stop=True, generator=seeded(0, 1))
    assert on_gpu.sequences.is_cuda and torch.equal(on_cpu.sequences, on_gpu.sequences.cpu())
    assert on_cpu.texts == on_gpu.texts and torch.equal(on_cpu.sequence_calls, on_gpu.sequence_calls)
