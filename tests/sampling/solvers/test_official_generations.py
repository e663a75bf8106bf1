"""Canvas for canvas what LLaDA, Fast-dLLM and Dream generate, by their own code on tiny checkpoints (golden files)."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers.golden_files import fixture_path
from safetensors.torch import load_file

from lsd_sampler import LSDScheduler, load_denoiser


LLADA = {"order": "confidence", "confidence_temperature": 0.0, "count": "llada"}
DREAM_ORDERS = {"maskgit_plus": "confidence", "topk_margin": "margin", "entropy": "entropy"}


def cases(folder: str, *unmatched: str) -> Iterator[tuple[dict[str, Any], torch.Tensor]]:
    """Settings and official canvases, `(calls + 1, batch, length)`, of the cases that need no more than a scheduler:
    neither padding (a matter of the network), nor noise of the official code's own, nor caches.
    """

    def fits(case: dict[str, Any]) -> bool:
        same_lengths, no_cache = len(set(case["prompt_lengths"])) == 1, case.get("cache", "none") == "none"
        return same_lengths and no_cache and "noise" not in case and case["name"] not in unmatched

    path = fixture_path(folder)
    expected = load_file(path / "expected.safetensors")
    for case in json.loads((path / "cases.json").read_text()):
        if fits(case):
            yield case, expected[f"{case['name']}.canvases"]


class Network:
    """Logits of a golden checkpoint, guided where the case says so; it counts its calls."""

    def __init__(self, folder: str, prompt_length: int, guidance: float = 0.0):
        self.denoiser = load_denoiser(str(fixture_path(folder)))
        self.prompt_length, self.guidance, self.calls = prompt_length, guidance, 0

    @torch.no_grad()
    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        logits = self.denoiser(canvas)
        if not self.guidance:
            return logits
        blind = canvas.clone()
        blind[:, : self.prompt_length] = self.denoiser.mask_token_id
        without = self.denoiser(blind)
        mixed = without + (self.guidance + 1) * (logits - without)
        return torch.where(logits == -torch.inf, logits, mixed)


def in_blocks(
    network: Network, canvas: torch.Tensor, block_length: int, steps: int, config: dict[str, Any], until_full: bool
) -> list[torch.Tensor]:
    """The canvas before each call and at the end: one generation of the scheduler for each block."""
    mask, canvases = network.denoiser.mask_token_id, [canvas]
    scheduler = LSDScheduler(mask_token_id=mask, **config)
    for start in range(network.prompt_length, canvas.shape[1], block_length):
        block = slice(start, start + block_length)
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            canvas = canvas.clone()
            logits = network(canvas)[:, block]
            canvas[:, block] = scheduler.step(logits, t, canvas[:, block], temperature=0.0).prev_sample
            canvases.append(canvas)
            if until_full and not (canvas[:, block] == mask).any():
                break
    return canvases


def assert_same_canvases(ours: list[torch.Tensor], official: torch.Tensor, name: str) -> None:
    assert len(ours) == len(official), f"{name}: {len(ours) - 1} calls, officially {len(official) - 1}"
    for k, (canvas, expected) in enumerate(zip(ours, official, strict=True)):
        assert torch.equal(canvas, expected), f"{name}: canvas {k}"


@pytest.mark.parametrize("folder", ["llada_generate", "fast_dllm_generate"])
def test_llada_counts(folder: str) -> None:
    seen = 0
    for case, official in cases(folder, "holes_in_prompt"):
        args = case["args"]
        if "threshold" in args or "factor" in args:
            continue
        steps = args["steps"] * args["block_length"] // case["gen_length"]
        network = Network(folder, case["prompt_lengths"][0], args.get("cfg_scale", 0.0))
        canvases = in_blocks(network, official[0], args["block_length"], steps, LLADA, until_full=False)
        assert_same_canvases(canvases, official, case["name"])
        seen += 1
    assert seen >= 1


def test_fast_dllm_rules() -> None:
    """A generous number of steps: the rule alone says when a block is full."""
    seen = set()
    for case, official in cases("fast_dllm_generate"):
        args = case["args"]
        for rule in {"threshold", "factor"} & set(args):
            config = {"solver": f"fast_dllm_{rule}", "solver_options": {rule: args[rule]}}
            network = Network("fast_dllm_generate", case["prompt_lengths"][0])
            canvases = in_blocks(network, official[0], args["block_length"], 50, config, until_full=True)
            assert_same_canvases(canvases, official, case["name"])
            assert network.calls == case["network_calls"]
            seen.add(rule)
    assert seen == {"threshold", "factor"}


def test_dream_counts_and_tempered_certainty() -> None:
    seen = set()
    # top_p leaves one token at many positions, and which of these equals comes first is an accident of `topk`
    for case, official in cases("dream_generate", "entropy_unequal_masks", "topk_margin_top_p"):
        args = case["args"]
        network = Network("dream_generate", case["prompt_lengths"][0])
        scheduler = LSDScheduler(
            mask_token_id=network.denoiser.mask_token_id, order=DREAM_ORDERS[args["alg"]], count="dream",
            confidence_temperature=0.0, certainty="tempered", sampling_eps=args.get("eps", 1e-3),
        )  # fmt: skip
        scheduler.set_timesteps(args["steps"])
        canvases, draws = [official[0]], {name: args[name] for name in ("top_p", "top_k") if name in args}
        for t in scheduler.timesteps:
            logits = network(canvases[-1])
            canvases.append(scheduler.step(logits, t, canvases[-1], temperature=0.0, **draws).prev_sample)
        assert_same_canvases(canvases, official, case["name"])
        seen.add(args["alg"])
    assert seen == set(DREAM_ORDERS)
