"""Canvas for canvas what KLASS, WINO and DUS generate by their own code (golden files)."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers.official_language_models import LLADA, Case, generate, official_cases, official_pipeline


KLASS_ORDERS = {"default": "confidence", "topk_margin": "margin"}


def klass_config(args: dict[str, Any]) -> dict[str, Any]:
    if args["alg"] in KLASS_ORDERS:
        return {**LLADA, "order": KLASS_ORDERS[args["alg"]]}
    return {
        "solver": "klass",
        "solver_options": {
            "confidence_threshold": args.get("conf_threshold", 0.9), "kl_threshold": args.get("kl_threshold", 0.01),
            "history_length": args.get("kl_history_length", 2), "reveals": args.get("unmask_strategy", "all"),
            "block_length": args["block_length"],
        },
    }  # fmt: skip


def wino_config(args: dict[str, Any]) -> dict[str, Any]:
    options = {name: args[name] for name in ("threshold", "threshold_back") if name in args}
    return {"solver": "wino", "solver_options": options}


def dus_config(args: dict[str, Any]) -> dict[str, Any]:
    if "gamma" in args:  # bits there
        return {"solver": "entropy_bounded", "solver_options": {"gamma": args["gamma"] * math.log(2)}}
    options = {name: args[name] for name in ("base", "base_skip") if name in args}
    if args.get("remasking", "none") == "low_confidence":
        options["remask_below"] = args.get("confidence_threshold", 0.3)
    return {"solver": "dus", "solver_options": {"levels": args["scheduler"], **options}}


def without_steps_that_change_nothing(canvases: list[torch.Tensor]) -> list[torch.Tensor]:
    """Steps at the end, of a generation that was complete before."""
    while len(canvases) > 1 and torch.equal(canvases[-1], canvases[-2]):
        canvases = canvases[:-1]
    return canvases


def of_whole_canvas(pipe: Any, tensors: dict[str, torch.Tensor], steps: int) -> list[torch.Tensor]:
    """The canvases of a run in which the solver itself goes through the blocks."""
    canvases = [tensors["canvases"][0]]

    def record(_: Any, step: int, t: torch.Tensor, given: dict[str, torch.Tensor]) -> None:
        canvases.append(given["sample"].clone())

    pipe(input_ids=canvases[0], num_inference_steps=steps, temperature=0.0, callback_on_step_end=record)
    return without_steps_that_change_nothing(canvases)


def from_prompt(pipe: Any, case: dict[str, Any], tensors: dict[str, torch.Tensor], steps: int) -> list[torch.Tensor]:
    """The canvases of a run in which the pipeline goes through the blocks."""
    canvases, out = generate(pipe, {**case, "args": {**case["args"], "steps": steps}}, tensors)
    changed = sum(not torch.equal(a, b) for a, b in zip(canvases, canvases[1:], strict=False))
    assert out.network_calls is not None and changed <= out.network_calls <= len(canvases) - 1
    return canvases


def assert_same_until(ours: list[torch.Tensor], official: torch.Tensor, mask: int, name: str) -> int:
    """The number of calls until the runs part. They may only part where the official one leaves masks for ever, or
    changes a token that it had revealed; all other tokens of that step are the same.
    """
    assert not (ours[-1] == mask).any(), name
    for k, (a, b) in enumerate(zip(ours, official, strict=False)):
        if torch.equal(a, b):
            continue
        changed = (official[k - 1] != mask) & (official[k] != official[k - 1])
        left = (official[-1] == mask) & (official[k] == mask)
        assert torch.equal(a[~changed & ~left], b[~changed & ~left]), f"{name}: canvas {k}"
        assert bool((changed | left)[a != b].any()), f"{name}: canvas {k}"
        return k
    assert len(ours) == len(official), f"{name}: {len(ours) - 1} calls, officially {len(official) - 1}"
    return len(official)


def cases(folder: str, *without: str) -> Iterator[Case]:
    for case, tensors in official_cases(folder):
        if case["args"].get("alg") not in without:
            yield case, tensors


def test_klass() -> None:
    """Its history goes on from block to block, so the solver goes through the blocks of the whole canvas."""
    whole = 0
    for case, tensors in cases("klass_generate", "entropy", "random"):
        args, official = case["args"], tensors["canvases"]
        pipe = official_pipeline("klass_generate", **klass_config(args))
        if args["alg"] == "klass":
            ours = of_whole_canvas(pipe, tensors, args["steps"])
        else:
            ours = from_prompt(pipe, case, tensors, args["steps"])
        until = assert_same_until(ours, official, pipe.denoiser.mask_token_id, case["name"])
        assert until >= 2
        whole += until == len(official)
    assert whole >= 4


def test_stated_difference_the_most_uncertain_go_first() -> None:
    """KLASS' code ranks by plus the entropy under the name `entropy`; here the least uncertain are first. Its first
    step takes the position that comes last here.
    """
    for case, tensors in official_cases("klass_generate"):
        if case["args"]["alg"] != "entropy":
            continue
        pipe, block = official_pipeline("klass_generate"), case["args"]["block_length"]
        canvas, after = tensors["canvases"][:2]
        start = case["prompt_lengths"][0]
        with torch.no_grad():
            entropy_S = torch.special.entr(pipe.denoiser(canvas).softmax(-1)).sum(-1)[0, start : start + block]
        taken_S = (canvas != after)[0, start : start + block]
        assert entropy_S[taken_S].min() >= entropy_S[~taken_S].max()


def test_wino() -> None:
    seen, masked_again = 0, 0
    for case, tensors in official_cases("wino_generate"):
        pipe = official_pipeline("wino_generate", **wino_config(case["args"]))
        blocks = case["gen_length"] // case["args"]["block_length"]
        mask, official = pipe.denoiser.mask_token_id, tensors["canvases"]
        ours = from_prompt(pipe, case, tensors, (case["network_calls"] + 1) * blocks)
        assert assert_same_until(ours, official, mask, case["name"]) == len(official)
        seen += 1
        masked_again += int(((official[:-1] != mask) & (official[1:] == mask)).sum())
    assert seen >= 4 and masked_again > 0


def test_the_shadow_of_the_first_call() -> None:
    """What the network predicts for each position of a block without its own token, beside the canvas's own rows."""
    for case, tensors in official_cases("wino_generate"):
        denoiser, start = official_pipeline("wino_generate").denoiser, case["prompt_lengths"][0]
        shadow = slice(start, start + case["args"]["block_length"])
        with torch.no_grad():
            logits = denoiser(tensors["canvases"][0], shadow=shadow)
            alone = denoiser(tensors["canvases"][0])
        torch.testing.assert_close(logits, tensors["logits_call_0"], rtol=5e-5, atol=5e-5)
        torch.testing.assert_close(logits[:, : alone.shape[1]], alone, rtol=5e-5, atol=5e-5)


def test_dus() -> None:
    """Dilated and binary levels, with and without masking again, and the entropy-bounded sampler with bits."""
    whole = parted = 0
    for case, tensors in official_cases("dus_generate"):
        args, official = case["args"], tensors["canvases"]
        if args.get("cfg_scale"):
            continue
        pipe = official_pipeline("dus_generate", **dus_config(args))
        steps = args.get("steps", case["network_calls"])
        ours = from_prompt(pipe, case, tensors, steps)
        until = assert_same_until(ours, official, pipe.denoiser.mask_token_id, case["name"])
        assert until >= 2
        whole, parted = whole + (until == len(official)), parted + (until < len(official))
        assert until == len(official) or case["masks_left"] > 0
    assert whole >= 6 and parted >= 1


def test_stated_difference_guidance_hides_the_prompt_alone() -> None:
    """The unconditional canvas of DUS' code masks every token that is known, here the prompt alone as in LLaDA's code:
    the runs are the same as long as nothing but the prompt is known.
    """
    for case, tensors in official_cases("dus_generate"):
        if case["args"].get("cfg_scale"):
            pipe = official_pipeline("dus_generate", **dus_config(case["args"]))
            ours = from_prompt(pipe, case, tensors, case["network_calls"])
            assert torch.equal(ours[1], tensors["canvases"][1])
            assert not (ours[-1] == pipe.denoiser.mask_token_id).any()
            known = [canvas != pipe.denoiser.mask_token_id for canvas in (*ours, *tensors["canvases"])]
            assert all(torch.equal(a, b) for a, b in zip(known[: len(ours)], known[len(ours) :], strict=True))


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_a_cache_has_no_shadow(cache: str) -> None:
    case, tensors = next(official_cases("wino_generate"))
    pipe = official_pipeline("wino_generate", solver="wino")
    with pytest.raises(ValueError, match=f"`cache` '{cache}'.*`solver` 'wino'"):
        from_prompt(pipe, {**case, "cache": cache}, tensors, 16)
