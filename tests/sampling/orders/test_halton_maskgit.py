"""The order of Halton-MaskGIT: first visits of Halton's points, written out by hand, begun at a random place."""

import pytest
import torch

from lsd_sampler.sampling.orders import ORDERS


# 1/2, 1/4, 3/4, 1/8, 5/8, 3/8, 7/8, 1/16 in base 2; in base 3 1/3, 2/3, 1/9, 4/9, 7/9, 2/9
BY_HAND = {(8,): [4, 2, 6, 1, 5, 3, 7, 0], (2, 3): [4, 2, 3, 1, 5, 0]}


@pytest.mark.parametrize("shape", BY_HAND)
def test_first_visits(shape: tuple[int, ...]) -> None:
    order = BY_HAND[shape]
    L = len(order)
    shift = torch.tensor([[(turn + 0.5) / L, 0.3] for turn in range(L)], dtype=torch.float64)
    orders = ORDERS["halton_maskgit"].keys(torch.zeros(L, L), shift, shape).argsort(1)
    assert [row.roll(-turn).tolist() for turn, row in enumerate(orders)] == [order] * L
