"""Canvas for canvas what LLaDA, Fast-dLLM and Dream generate from prompts by their own code (golden files)."""

from collections.abc import Iterator
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

from lsd_sampler import MaskedDiffusionPipeline
from lsd_sampler.sampling import certainty
from lsd_sampler.sampling.canvas import StepInput
from lsd_sampler.sampling.logit_rows import DeferredLogits
from lsd_sampler.sampling.orders import ConfidenceOrder, LogitOrder
from lsd_sampler.sampling.orders.by_logits import gumbel_top, num_due
from lsd_sampler.sampling.plan import StepPlan


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
