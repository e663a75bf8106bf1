"""What a pipeline says of a call before it is made, and what the call then does."""

from typing import Any

import pytest
import torch
from helpers.tiny_answerers import tiny_answerer


@pytest.mark.parametrize("block_length", [None, 3, 4, 8])
def test_the_call_does_what_was_said(block_length: int | None) -> None:
    pipe = tiny_answerer("llada")
    call: dict[str, Any] = {"prompt": ["a b c", "d"], "max_new_tokens": 8, "block_length": block_length}
    blocks: list[torch.Tensor] = []
    out = pipe(**call, callback_on_block_end=lambda pipe, block, kept: blocks.append(kept["block_tokens"]) or {})
    assert pipe.number_of_blocks(call) == len(blocks)
    assert pipe.new_tokens(call) == sum(block.shape[1] for block in blocks) == 8
    mask = pipe.denoiser.mask_token_id
    for canvas, made in zip(pipe.prompt_canvases(call), out.sequences, strict=True):
        given = canvas[canvas != mask]
        assert len(canvas) == len(given) + 8 and torch.equal(made[-len(canvas) :][: len(given)], given)


def test_a_cache_takes_memory_for_each_row() -> None:
    """That it is what tensors take is tested with the command that tells it."""
    pipe = tiny_answerer("llada")
    call: dict[str, Any] = {"prompt": ["a b c", "d"], "max_new_tokens": 8, "block_length": 4}
    assert pipe.cache_bytes(call, 2) == 0
    one = pipe.cache_bytes({**call, "cache": "dual"}, 1)
    assert one > 0 and pipe.cache_bytes({**call, "cache": "dual"}, 3) == 3 * one
    assert pipe.cache_bytes({**call, "cache": "dual", "guidance_scale": 1.0}, 1) == 2 * one
