"""Generation from prompts: what official code generates, and the laws of blocks, batches, caches and early stops."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.official_language_models import (
    Case,
    assert_same_canvases,
    dream_config,
    generate,
    llada_config,
    official_cases,
    official_pipeline,
)
from helpers.tiny_answerers import EOS, FAMILIES, MASK, tiny_answerer
from hypothesis import given, settings
from hypothesis import strategies as st

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.denoisers.block_generation import steps_of_blocks
from lsd_sampler.sampling import certainty
from lsd_sampler.sampling.canvas import StepInput
from lsd_sampler.sampling.dependence import Dependence
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
from lsd_sampler.sampling.logit_rows import DeferredLogits
from lsd_sampler.sampling.orders import ORDERS, ConfidenceOrder, LogitOrder
from lsd_sampler.sampling.orders.by_logits import gumbel_top, num_due
from lsd_sampler.sampling.plan import StepPlan
from lsd_sampler.sampling.position_choice import PositionChoice
from lsd_sampler.sampling.solvers import SOLVERS


# ---- official generations ----

LLADA_FOLDERS = ("llada_generate", "fast_dllm_generate")
DREAM_FOLDERS = ("dream_generate", "fast_dllm_dream_generate")
# cases in which the official code leaves masks, changes what was given, or breaks ties by accident: below
STATED_DIFFERENCES = {"holes_in_prompt", "dual_threshold_few_steps", "entropy_unequal_masks", "topk_margin_top_p"}


def from_prompts(folder: str) -> Iterator[Case]:
    """Cases without noise of the official code's own, and without tokens that a hook sets."""
    for case, tensors in official_cases(folder):
        if "noise" not in case and "fixed" not in case and case["name"] not in STATED_DIFFERENCES:
            yield case, tensors


@pytest.mark.parametrize("folder", LLADA_FOLDERS + DREAM_FOLDERS)
def test_official_canvases_and_calls(folder: str) -> None:
    """LLaDA with and without guidance and padding; Dream's algorithms; Fast-dLLM's rules with each cache: the same
    canvas after each step, and a network call at each step that has anything new to see.
    """
    config_of, seen = (llada_config if folder in LLADA_FOLDERS else dream_config), 0
    for case, tensors in from_prompts(folder):
        canvases, out = generate(official_pipeline(folder, **config_of(case["args"])), case, tensors)
        assert_same_canvases(canvases, tensors["canvases"], case["name"])
        assert len(canvases) - 1 == case["network_calls"]
        changed = sum(not torch.equal(a, b) for a, b in zip(canvases, canvases[1:], strict=False))
        assert out.network_calls is not None and changed <= out.network_calls <= case["network_calls"]
        if changed == case["network_calls"]:
            assert out.network_calls == case["network_calls"]
        seen += 1
    assert seen >= 8


class Recorded(LogitOrder):
    """Positions by the uniforms of an official run."""

    def __init__(self, uniforms: torch.Tensor, blocks: list[slice]):
        self.parts = iter([u[:, block] for u, block in zip(uniforms, blocks, strict=True)])

    def choose(self, x: StepInput, plan: StepPlan, choice_BL: torch.Tensor, jump_BL: torch.Tensor) -> torch.Tensor:
        u_BL = next(self.parts).masked_fill(~x.masked_BL, -torch.inf)
        return x.masked_BL & (certainty.ranks(u_BL.double()) < num_due(x, plan, jump_BL)[:, None])

    def reveals(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        chosen_BL = self.choose(x, plan, x.canvas.u_BL, x.canvas.u_BL)
        return x.masked_BL if x.is_last else chosen_BL, x.canvas.v_BL


class Origin(Recorded):
    """Dream's `origin`: each position on its own."""

    def choose(self, x: StepInput, plan: StepPlan, choice_BL: torch.Tensor, jump_BL: torch.Tensor) -> torch.Tensor:
        t, s = plan.steps.timesteps[x.k : x.k + 2].float()
        return x.masked_BL & (next(self.parts) < 1 - s / t)


class RecordedTokens(ConfidenceOrder):
    """Tokens by the uniforms of an official run at a temperature: the argmax of `exp(logits) / (-log u)^T`."""

    def __init__(self, uniforms: torch.Tensor, blocks: list[slice], temperature: float):
        self.parts = iter([u[:, block] for u, block in zip(uniforms, blocks, strict=True)])
        self.temperature = temperature

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        assert isinstance(x.logits_BLV, DeferredLogits)
        row_R, position_R = x.masked_BL.nonzero(as_tuple=True)
        u_RV = next(self.parts)[row_R, position_R]
        noised_RV = x.logits_BLV.rows(row_R, position_R).double() - self.temperature * (-u_RV.log()).log()
        drawn_BL = x.sample_BL.index_put((row_R, position_R), noised_RV.argmax(-1))
        due_B = num_due(x, plan, x.canvas.u_BL)
        chosen_BL = x.masked_BL & gumbel_top(x.confidence(x.masked_BL, drawn_BL), due_B, 0.0, x.canvas.u_BL)
        return torch.where(chosen_BL, drawn_BL, x.sample_BL), torch.zeros(chosen_BL.shape)


def blocks_of_steps(case: dict[str, Any]) -> list[slice]:
    """The positions that each step of a case sees."""
    start, total, steps = max(case["prompt_lengths"]), case["gen_length"], case["args"]["steps"]
    size = case["args"].get("block_length", total)
    return [
        slice(start + i * size, start + (i + 1) * size)
        for i in range(total // size)
        for _ in range(steps * size // total)
    ]


def test_official_canvases_from_the_official_noise() -> None:
    """Random positions, Dream's `origin`, and tokens at a temperature."""
    seen = set()
    for folder in ("llada_generate", "dream_generate"):
        for case, tensors in official_cases(folder):
            if "noise" not in case:
                continue
            uniforms, blocks = tensors["uniforms"], blocks_of_steps(case)
            pipe = official_pipeline(folder, count="llada", sampling_eps=1e-3)
            if case["noise"] == "tokens":
                pipe.scheduler.rule = RecordedTokens(uniforms, blocks, case["args"]["temperature"])
            else:
                pipe.scheduler.rule = (Origin if case["noise"] == "origin" else Recorded)(uniforms, blocks)
            canvases, _ = generate(pipe, case, tensors)
            assert_same_canvases(canvases, tensors["canvases"], case["name"])
            seen.add(case["noise"])
    assert seen == {"positions", "origin", "tokens"}


def filled(case: dict[str, Any], tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The canvases of a Dream case whose ending is given: as a canvas to fill in."""
    canvases = [tensors["canvases"][0]]
    pipe = official_pipeline("dream_generate", **dream_config(case["args"]))

    def record(_: Any, step: int, t: torch.Tensor, given: dict[str, torch.Tensor]) -> None:
        canvases.append(given["sample"].clone())

    steps = case["args"]["steps"]
    pipe(input_ids=canvases[0], num_inference_steps=steps, temperature=0.0, callback_on_step_end=record)
    return canvases


def difference(folder: str, name: str) -> Case:
    return next((case, tensors) for case, tensors in official_cases(folder) if case["name"] == name)


def first_difference(ours: list[torch.Tensor], official: torch.Tensor) -> int:
    return next(k for k, (a, b) in enumerate(zip(ours, official, strict=False)) if not torch.equal(a, b))


def test_a_given_ending() -> None:
    case, tensors = difference("dream_generate", "entropy_fixed_ending")
    assert_same_canvases(filled(case, tensors), tensors["canvases"], case["name"])


def test_stated_difference_unequal_masks() -> None:
    """Dream reveals the batch's average number in each row, and masks given tokens again; here each row has the number
    for its own masks.
    """
    case, tensors = difference("dream_generate", "entropy_unequal_masks")
    ours, official = filled(case, tensors), tensors["canvases"]
    mask = official_pipeline("dream_generate").denoiser.mask_token_id
    given_BL = ours[0] != mask
    assert all(torch.equal(canvas[given_BL], ours[0][given_BL]) for canvas in ours)
    assert not (ours[-1] == mask).any() and (official[-1] == mask).any()
    assert first_difference(ours, official) >= 1


def test_stated_difference_few_steps_with_the_dual_cache() -> None:
    """Fast-dLLM goes on to the next block with masks left; here the last step of a block reveals them."""
    case, tensors = difference("fast_dllm_generate", "dual_threshold_few_steps")
    ours, out = generate(official_pipeline("fast_dllm_generate", **llada_config(case["args"])), case, tensors)
    assert first_difference(ours, tensors["canvases"]) == case["args"]["steps"] * 8 // 16  # the block's last step
    mask = official_pipeline("fast_dllm_generate").denoiser.mask_token_id
    assert not (out.sequences == mask).any() and (tensors["canvases"][-1] == mask).any()


def test_stated_difference_masks_in_the_prompt() -> None:
    case, tensors = difference("llada_generate", "holes_in_prompt")
    with pytest.raises(ValueError, match="`prompt` must be tokens without the mask"):
        generate(official_pipeline("llada_generate", **llada_config(case["args"])), case, tensors)


def without_mask_column(pipe: MaskedDiffusionPipeline, canvas: torch.Tensor, block: slice, num: int) -> torch.Tensor:
    """LLaDA's step from a canvas, had it removed the mask's column: the surest `num` tokens of a block."""
    mask = pipe.denoiser.mask_token_id
    with torch.no_grad():
        p_BSV = pipe.denoiser(canvas).index_fill(-1, torch.tensor([mask]), -torch.inf).softmax(-1)[:, block]
    confidence_BS, token_BS = p_BSV.max(-1)
    place_BS = certainty.ranks(confidence_BS.masked_fill(canvas[:, block] != mask, -torch.inf))
    following = canvas.clone()
    following[:, block] = torch.where(place_BS < num, token_BS, canvas[:, block])
    return following


def test_stated_difference_the_mask_is_never_drawn() -> None:
    """LLaDA's code lets the mask take part: it may be drawn, and lowers confidences. The canvases are the same up to
    the first step in which that decides.
    """
    parted = 0
    for case, tensors in official_cases("llada_generate_mask_column"):
        pipe = official_pipeline("llada_generate_mask_column", **llada_config(case["args"]))
        ours, out = generate(pipe, case, tensors)
        assert not (out.sequences == pipe.denoiser.mask_token_id).any()
        official, num = tensors["canvases"], case["gen_length"] // case["args"]["steps"]
        same = [
            torch.equal(without_mask_column(pipe, canvas, block, num), after)
            for canvas, after, block in zip(official, official[1:], blocks_of_steps(case), strict=False)
        ]
        until = same.index(False) if False in same else len(same)
        assert all(torch.equal(a, b) for a, b in zip(ours[: until + 1], official[: until + 1], strict=True))
        parted += until < len(same)
        assert until >= 4
    assert parted >= 1


def test_stated_difference_ties_after_top_p() -> None:
    """Where `top_p` leaves one token, the lead is 1 at many positions, and Dream's `topk` takes any of them; here it
    is the leftmost. Both take positions of the same leads.
    """
    case, tensors = difference("dream_generate", "topk_margin_top_p")
    pipe = official_pipeline("dream_generate", **dream_config(case["args"]))
    ours, _ = generate(pipe, case, tensors)
    k, official = first_difference(ours, tensors["canvases"]), tensors["canvases"]
    with torch.no_grad():
        p = pipe.denoiser(ours[k - 1]).softmax(-1).sort(-1, descending=True).values
    kept = torch.where(p.cumsum(-1) - p > case["args"]["top_p"], 0.0, p)
    kept = kept / kept.sum(-1, keepdim=True)
    lead_BL = kept[..., 0] - kept[..., 1]
    taken = [lead_BL[(canvas != ours[k - 1])].sort().values for canvas in (ours[k], official[k])]
    torch.testing.assert_close(taken[0], taken[1])


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
