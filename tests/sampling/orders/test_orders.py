"""Orders of revealing: each visits every position once."""

import math

import pytest
import torch
from helpers.sampler_runs import EACH_ORDER

from lsd_sampler.sampling.orders import ORDERS


@pytest.mark.parametrize("shape", [(1,), (2,), (13,), (100,), (128,), (3, 5), (16, 16), (1, 9)])
@EACH_ORDER
def test_order_visits_each_position_once(order: str, shape: tuple[int, ...]) -> None:
    B, L = 5, math.prod(shape)
    keys = ORDERS[order].keys(torch.rand(B, L, dtype=torch.float64), torch.rand(B, 2, dtype=torch.float64), shape)
    assert keys.shape == (B, L)
    assert all(len(set(row)) == L for row in keys.tolist())
