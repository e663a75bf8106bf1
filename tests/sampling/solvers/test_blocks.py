"""Blocks that a solver goes through by itself: from left to right, each with its share of the calls."""

import pytest
import torch
from helpers.sampler_runs import MASK, fixed_model, generate, seeded

from lsd_sampler import LSDScheduler


def path(canvas: torch.Tensor, steps: int, length: int) -> list[torch.Tensor]:
    options = {"block_length": length, "confidence_threshold": 1.0}  # nothing is ever ready: shares decide
    scheduler = LSDScheduler(mask_token_id=MASK, solver="klass", solver_options=options)
    return generate(scheduler, fixed_model(canvas, MASK), canvas, steps, generator=seeded())


def test_calls_are_shared_out() -> None:
    """7 calls for 3 blocks: 3, 2 and 2; blocks begin behind what was given."""
    canvas = torch.full((1, 14), MASK)
    canvas[0, :2] = 0
    masks = [[int((x[0, i : i + 4] == MASK).sum()) for i in (2, 6, 10)] for x in path(canvas, 7, 4)]
    assert masks[3] == [0, 4, 4] and masks[5] == [0, 0, 4] and masks[7] == [0, 0, 0]
    assert all(block[0] > 0 for block in masks[:3]) and masks[4][1] > 0 and masks[6][2] > 0


def test_rows_go_through_blocks_of_their_own() -> None:
    canvas = torch.full((3, 12), MASK)
    canvas[1, :5], canvas[2, 3:9] = 0, 1
    together = path(canvas, 6, 4)
    for i in range(3):
        options = {"block_length": 4, "confidence_threshold": 1.0}
        scheduler = LSDScheduler(mask_token_id=MASK, solver="klass", solver_options=options)
        alone = generate(scheduler, lambda _, i=i: fixed_model(canvas, MASK)(None)[i : i + 1], canvas[i : i + 1], 6)
        known = [(a[i] != MASK).tolist() == (b[0] != MASK).tolist() for a, b in zip(together, alone, strict=True)]
        assert all(known)


def test_more_blocks_than_calls() -> None:
    with pytest.raises(ValueError, match=r"`solver_options\['block_length'\]` 2 makes 4 blocks, and 3 calls"):
        path(torch.full((1, 8), MASK), 3, 2)
