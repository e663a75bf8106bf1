"""Keys and values that are kept: what a window computes, and what it sees of the rest."""

import pytest
import torch
from helpers.official_language_models import official_cases, official_pipeline
from helpers.tiny_answerers import FAMILIES, MASK, tiny_denoiser

from lsd_sampler.denoisers.key_values import KeyValueCache


CANVAS = torch.tensor([[5, 6, 7, MASK, 8, MASK, MASK, MASK], [9, 9, 9, 10, MASK, MASK, MASK, MASK]])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("window", [(3, 8), (3, 5)])
@pytest.mark.parametrize("padding", [0, 2])
@torch.no_grad()
def test_an_unchanged_window_has_the_same_logits(family: str, window: tuple[int, int], padding: int) -> None:
    """But for the first row of shifted networks, which only a call on the whole canvas has."""
    denoiser, cache = tiny_denoiser(family), KeyValueCache()
    text = torch.ones(CANVAS.shape, dtype=torch.bool)
    text[1, :padding] = False
    mask = text if padding else None
    whole = denoiser(CANVAS, attention_mask=mask)
    torch.testing.assert_close(denoiser(CANVAS, attention_mask=mask, cache=cache), whole)
    cache.window = window
    first = int(denoiser.shifted)
    kept = denoiser(CANVAS, attention_mask=mask, cache=cache)
    torch.testing.assert_close(kept[:, first:], whole[:, slice(*window)][:, first:])
    cache.rows = torch.tensor([1])
    one = denoiser(CANVAS[1:], attention_mask=None if mask is None else mask[1:], cache=cache)
    torch.testing.assert_close(one[:, first:], whole[1:, slice(*window)][:, first:])


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_what_is_outside_the_window_is_as_it_was(family: str) -> None:
    """A window sees its own tokens as they are now, and the others as they were at the last call on all."""
    denoiser, cache = tiny_denoiser(family), KeyValueCache()
    denoiser(CANVAS, cache=cache)
    cache.window = (3, 6)
    before = denoiser(CANVAS, cache=cache)
    outside, inside = CANVAS.clone(), CANVAS.clone()
    outside[:, [1, 7]], inside[:, 5] = 11, 11
    assert torch.equal(denoiser(outside, cache=cache), before)
    changed = denoiser(inside, cache=cache)
    assert not torch.allclose(changed[:, 1], before[:, 1])
    # and back: what a window computed is not kept longer than that
    torch.testing.assert_close(denoiser(CANVAS, cache=cache), before)


@pytest.mark.parametrize("folder", ["fast_dllm_generate", "fast_dllm_dream_generate"])
@torch.no_grad()
def test_official_logits_of_the_first_two_calls(folder: str) -> None:
    """Of Fast-dLLM: on the whole canvas, then on the block and what follows it, or on the block alone."""
    seen, denoiser = set(), official_pipeline(folder).denoiser
    for case, tensors in official_cases(folder):
        cache, canvases, start = KeyValueCache(), tensors["canvases"], case["prompt_lengths"][0]
        # without a cache, or in a new block, the second call is on all positions again
        if case["cache"] == "none" or tensors["logits_call_1"].shape[1] == canvases.shape[-1]:
            continue
        size = case["args"].get("block_length", case["gen_length"])
        # golden logits are those before the shift, without its first row
        first = int(denoiser.shifted)
        expected = [tensors[f"logits_call_{k}"][:, : -first or None] for k in (0, 1)]
        outputs = [denoiser(canvases[0], cache=cache)]
        cache.window = (start, canvases.shape[-1] if case["cache"] == "prefix" else start + size)
        outputs.append(denoiser(canvases[1], cache=cache))
        for ours, official in zip(outputs, expected, strict=True):
            torch.testing.assert_close(ours[:, first:], official, atol=5e-5, rtol=5e-5)
        seen.add(case["cache"])
    assert seen == {"prefix", "dual"}
