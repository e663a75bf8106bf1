"""The dilated order: grids whose spacing halves."""

import torch
from helpers.sampler_runs import MASK, fixed_model, generate, seeded

from lsd_sampler import LSDScheduler


def test_each_call_halves_the_spacing() -> None:
    canvas = torch.full((1, 16), MASK)
    scheduler = LSDScheduler(mask_token_id=MASK, order="dus", count="levels")
    path = generate(scheduler, fixed_model(canvas, MASK), canvas, 4, generator=seeded())
    known = [(x[0] != MASK).nonzero()[:, 0].tolist() for x in path[1:]]
    assert known == [[0, 8], [0, 4, 8, 12], [*range(0, 16, 2)], [*range(16)]]


def test_the_grid_begins_at_the_first_mask() -> None:
    """A prompt does not move it."""
    canvas = torch.full((1, 21), MASK)
    canvas[0, :5] = 0
    scheduler = LSDScheduler(mask_token_id=MASK, order="dus", count="levels")
    path = generate(scheduler, fixed_model(canvas, MASK), canvas, 4, generator=seeded())
    assert (path[1][0, 5:] != MASK).nonzero()[:, 0].tolist() == [0, 8]
