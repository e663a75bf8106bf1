"""The random order: every permutation of the masked positions is equally likely."""

import torch
from helpers.goodness_of_fit import p_value
from helpers.sampler_runs import seeded
from helpers.tiny_oracle import FALSE_ALARM, NUM_SAMPLES

from lsd_sampler.sampling.canvas import Canvas
from lsd_sampler.sampling.orders import ORDERS


def test_every_order_is_equally_likely() -> None:
    masked = torch.tensor([True, False, True, True]).expand(NUM_SAMPLES, -1)
    rank = Canvas.draw(masked, ORDERS["random"].keys, (4,), seeded(), start=0).rank_BL
    assert bool((rank[:, 1] == 3).all())
    seen = (rank[:, [0, 2, 3]] * torch.tensor([9, 3, 1])).sum(1).unique(return_counts=True)[1]
    assert len(seen) == 6 and p_value(seen.numpy(), torch.full((6,), 1 / 6).double().numpy()) > FALSE_ALARM
