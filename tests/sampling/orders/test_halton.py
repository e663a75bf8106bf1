"""The low-discrepancy order: evenly spread under any shift, and around what is known."""

import pytest
import torch
from helpers.sampler_runs import MASK, fixed_model, generate, seeded

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.orders import ORDERS


@pytest.mark.parametrize("length", [8, 64, 256])
def test_halton_order_keeps_its_distance(length: int) -> None:
    """The first L / 2^k positions are at least 2^k - 1 apart, around the ring too."""
    shift = torch.rand(50, 2, dtype=torch.float64)
    keys = ORDERS["halton"].keys(torch.zeros(50, length, dtype=torch.float64), shift, (length,))
    for k in range(length.bit_length()):
        first = keys.argsort(1)[:, : length >> k].sort(1).values
        gaps = torch.cat([first, first[:, :1] + length], dim=1).diff()
        assert gaps.min() >= 2**k - 1


def test_halton_order_fills_images_evenly() -> None:
    """The first 16 of 64 positions lie one in each 2 x 2 cell of an 8 x 8 canvas, the first 4 one in each quarter."""
    shift = torch.cartesian_prod(*[torch.tensor([0.0, 0.25, 0.5, 0.75], dtype=torch.float64)] * 2)
    order = ORDERS["halton"].keys(torch.zeros(16, 64, dtype=torch.float64), shift, (8, 8)).argsort(1)
    y, x = order // 8, order % 8
    assert ((y // 2 * 4 + x // 2)[:, :16].sort(1).values == torch.arange(16)).all()
    quarters = (y // 4 * 2 + x // 4)[shift[:, 0] % 0.5 + shift[:, 1] % 0.5 == 0]
    assert (quarters[:, :4].sort(1).values == torch.arange(4)).all()


def test_halton_order_leaves_known_positions_out() -> None:
    """A prompt changes neither the relative order of the rest nor itself."""
    canvas = torch.full((1, 32), MASK)
    scheduler = LSDScheduler(mask_token_id=MASK, order="halton")

    def revealed(canvas: torch.Tensor) -> list[int]:
        path = generate(scheduler, fixed_model(canvas, MASK), canvas, 64, generator=seeded())
        steps = torch.stack([(x == MASK).sum(0) for x in path]).sum(0)
        return [i for i in steps.argsort(stable=True).tolist() if canvas[0, i] == MASK]

    whole = revealed(canvas)
    canvas[0, 10:20] = 2
    assert revealed(canvas) == [i for i in whole if not 10 <= i < 20]
