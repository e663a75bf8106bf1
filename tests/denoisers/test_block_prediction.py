"""Calls for one block after another: how many, on which positions, and with which guidance."""

from typing import Any

import pytest
import torch
from helpers.ddit_checkpoints import make
from helpers.tiny_answerers import FAMILIES, MASK, tiny_answerer, tiny_denoiser

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.denoisers import Denoiser, random_chain
from lsd_sampler.denoisers.block_prediction import BlockPredictor
from lsd_sampler.denoisers.key_values import KeyValueCache
from lsd_sampler.denoisers.prompts import PaddedPrompts


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def positions_of_calls(pipe: MaskedDiffusionPipeline, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Sequences and positions of each call of the network, from now on."""
    shapes: list[tuple[int, int]] = []
    trunk = pipe.denoiser._trunk

    def watched(ids: torch.Tensor, **options: Any) -> torch.Tensor:
        shapes.append((ids.shape[0], ids.shape[1]))
        return trunk(ids, **options)

    monkeypatch.setattr(pipe.denoiser, "_trunk", watched)
    return shapes


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize(
    ("cache", "later"), [("none", [(2, 9), (2, 9)]), ("prefix", [(2, 6), (2, 2)]), ("dual", [(2, 4), (2, 2)])]
)
def test_positions_that_are_computed(
    family: str, cache: str, later: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of 4 and 2 after a prompt of 3: all in the first call of a block, then the block and what follows, or the
    block alone.
    """
    pipe = tiny_answerer(family, order="halton", count="llada")
    shapes = positions_of_calls(pipe, monkeypatch)
    pipe(prompt=[[5, 6, 7], [8, 9, 10]], max_new_tokens=6, block_length=4, num_inference_steps=4, cache=cache)
    assert shapes == [(2, 9), later[0], (2, 9), later[1]]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_guidance(family: str, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """LLaDA's formula, in one call of twice as many sequences."""
    denoiser, scale, block = tiny_denoiser(family), 1.5, slice(3, 6)
    prompts = PaddedPrompts.of([torch.tensor([5, 6, 7]), torch.tensor([8, 9, 10])], 5, MASK, 0)
    scheduler = LSDScheduler(**denoiser.scheduler_config())
    predictor = BlockPredictor(denoiser, scheduler, prompts, guidance_scale=scale, cache=cache)
    predictor.begin(block)
    given, blind = prompts.canvas_BL, prompts.canvas_BL.clone()
    blind[:, :3] = MASK
    with torch.no_grad():
        output = predictor(given, torch.tensor(1.0), torch.ones(2, dtype=torch.bool))
        first, second = denoiser(given)[:, block], denoiser(blind)[:, block]
    rows = torch.arange(2).repeat_interleave(3), torch.arange(3).repeat(2)
    expected = (second + (1 + scale) * (first - second))[rows]
    torch.testing.assert_close(output.rows(*rows), expected, atol=1e-4, rtol=1e-4)
    assert predictor.passes == 1 and predictor.calls_B.tolist() == [1, 1]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_guidance_with_a_cache(family: str, cache: str) -> None:
    """Both canvases have keys and values of their own."""
    denoiser, scale, block = tiny_denoiser(family), 0.7, slice(4, 7)
    prompts = PaddedPrompts.of([torch.tensor([5, 6, 7]), torch.tensor([8, 9, 10])], 5, MASK, 0)
    scheduler = LSDScheduler(**denoiser.scheduler_config())
    predictor = BlockPredictor(denoiser, scheduler, prompts, guidance_scale=scale, cache=cache)
    predictor.begin(block)
    first, everyone = prompts.canvas_BL, torch.ones(2, dtype=torch.bool)
    second = first.clone()
    second[:, 4] = torch.tensor([11, 12])
    row_R, position_R = torch.tensor([0, 0, 1, 1]), torch.tensor([1, 2, 1, 2])  # what a shifted network predicts too
    with torch.no_grad():
        predictor(first, torch.tensor(1.0), everyone)
        output = predictor(second, torch.tensor(0.5), everyone).rows(row_R, position_R)
        apart = []
        for is_blind in (False, True):
            kept = KeyValueCache()
            for canvas in (first, second):
                canvas = canvas.clone()
                if is_blind:
                    canvas[:, :3] = MASK
                logits = denoiser(canvas, cache=kept)
                kept.window = (4, 8 if cache == "prefix" else 7)
            apart.append(logits[row_R, position_R])
    torch.testing.assert_close(output, apart[1] + (1 + scale) * (apart[0] - apart[1]), atol=1e-4, rtol=1e-4)
    assert predictor.passes == 2


def test_excluded_tokens_stay_excluded_under_guidance() -> None:
    """Minus infinity less minus infinity is not a number."""
    denoiser = tiny_denoiser("llada")
    denoiser.register_buffer("_excluded", torch.tensor([3, 4]), persistent=False)
    pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config()))
    pipe.set_progress_bar_config(disable=True)
    out = pipe(prompt=[[5, 6]] * 8, max_new_tokens=20, guidance_scale=2.0, block_length=5)
    assert not torch.isin(out.sequences, torch.tensor([3, 4, MASK])).any()


def other_families() -> dict[str, Denoiser]:
    """Networks and oracles that take no attention mask."""
    return {**{name: make(name) for name in ("radd", "mdlm-time", "sedd")}, "chain": random_chain(8, 12, seed=0)}


@pytest.mark.parametrize("name", sorted(other_families()))
@pytest.mark.parametrize("order", ["halton", "confidence"])
def test_families_without_masks_for_padding(name: str, order: str) -> None:
    """They get no padding: each row is as if it were alone, and prompts of one length share a call."""
    denoiser = other_families()[name].eval()
    pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config(), order=order))
    pipe.set_progress_bar_config(disable=True)
    call: dict[str, Any] = {"max_new_tokens": 5, "block_length": 3, "num_inference_steps": 4}
    prompts = [[1, 2, 0], [2], [0, 1, 1]]
    out = pipe(prompt=prompts, generator=seeded(0, 1, 2), **call)
    assert out.network_calls == 2 * 4
    for i, prompt in enumerate(prompts):
        alone = pipe(prompt=prompt, generator=seeded(i), **call)
        assert torch.equal(alone.sequences[0, len(prompt) :], out.sequences[i, 3:])
        assert out.sequence_calls[i] == alone.network_calls == 4


def test_a_family_without_a_cache_says_so_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    denoiser = make("radd")
    pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config()))
    pipe.set_progress_bar_config(disable=True)
    call: dict[str, Any] = {"prompt": [1, 2], "max_new_tokens": 6, "block_length": 3}
    plain = pipe(**call, generator=seeded(0))
    assert not caplog.records
    cached = pipe(**call, generator=seeded(0), cache="dual")
    assert torch.equal(plain.sequences, cached.sequences)
    (record,) = caplog.records
    assert record.getMessage() == "RADDDenoiser keeps no keys and values, so `cache` 'dual' has no effect."


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_a_call_that_has_nothing_new_to_see_is_left_out(cache: str) -> None:
    """Eight steps for four tokens: the second half of the steps reveals nothing."""
    pipe = tiny_answerer("llada", order="halton", count="llada")
    out = pipe(prompt=[5, 6], max_new_tokens=4, num_inference_steps=8, cache=cache)
    assert out.network_calls == 5


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_sequences_that_are_done_are_not_computed(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny_answerer("llada", solver="fast_dllm_threshold", solver_options={"threshold": 0.6})
    shapes = positions_of_calls(pipe, monkeypatch)
    prompts = [[5, 6], [7], [8, 9, 10]]
    out = pipe(prompt=prompts, max_new_tokens=12, block_length=6, temperature=0.0, cache=cache)
    assert sum(rows for rows, _ in shapes) == int(out.sequence_calls.sum()) < 3 * len(shapes)


def test_bad_options() -> None:
    pipe = tiny_answerer("llada")
    with pytest.raises(ValueError, match="`cache` must be one of .*'dual'.*got 'paged'"):
        pipe(prompt=[5], cache="paged")
    scores = make("sedd")
    pipe = MaskedDiffusionPipeline(scores, LSDScheduler(**scores.scheduler_config()))
    with pytest.raises(ValueError, match="`guidance_scale` needs logits"):
        pipe(prompt=[1], max_new_tokens=3, guidance_scale=1.0)
