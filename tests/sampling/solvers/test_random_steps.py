"""Random numbers of tokens in each call: all sets of cut points alike, whatever the data."""

from collections import Counter
from math import comb

import numpy as np
import torch
from helpers.goodness_of_fit import p_value
from helpers.sampler_runs import MASK, generate, seeded

from lsd_sampler import LSDScheduler


def numbers(canvas: torch.Tensor, steps: int) -> torch.Tensor:
    """How many tokens of each sequence are revealed in each call, `(B, steps)`."""
    scheduler = LSDScheduler(mask_token_id=MASK, solver="random_steps")
    logits = torch.randn(1, canvas.shape[1], MASK, generator=seeded(3)).expand(len(canvas), -1, -1)
    path = generate(scheduler, lambda _: logits, canvas, steps, generator=seeded())
    return torch.stack([(a == MASK).sum(1) - (b == MASK).sum(1) for a, b in zip(path, path[1:], strict=False)], dim=1)


def test_each_set_of_cut_points_is_as_likely() -> None:
    """6 masks in 3 calls: 10 ways. 20,000 sequences, rejected at p < 1e-6."""
    found = Counter(map(tuple, numbers(torch.full((20_000, 6), MASK), 3).tolist()))
    assert len(found) == comb(5, 2) and all(min(way) >= 1 for way in found)
    assert p_value(np.array([*found.values()]), np.full(10, 0.1)) > 1e-6


def test_fewer_masks_than_calls() -> None:
    canvas = torch.full((3, 6), MASK)
    canvas[1, :4] = 0
    by_call = numbers(canvas, 9)
    assert by_call[0].tolist() == [1] * 6 + [0] * 3 and by_call[1].tolist() == [1] * 2 + [0] * 7
