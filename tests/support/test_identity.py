"""Hashes of values: the same for equal ones, different for others, and none where there is no telling."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.own_network import Own, Part
from PIL import Image

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.noise import Geometric
from lsd_sampler.support.identity import Undescribable, identity


def test_values_that_differ_are_described_otherwise() -> None:
    def adds(number: int) -> Callable[[int], int]:
        return lambda x: x + number

    values = [
        *(None, True, 1, 1.5, "1", b"1", 1j, range(3), slice(3)),
        *([1, 2], [2, 1], [[1], 2], {1, 2}, {"a": 1}, {"a": "1"}, {1: "a"}, {"1": "a"}),
        *(torch.tensor(2**24), torch.tensor(2**24 + 1), torch.tensor([2**24]), torch.tensor(2.0**24)),
        *(torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(2, 3, dtype=torch.bfloat16), torch.zeros(2, 3).bool()),
        *(torch.zeros(2, 3).numpy(), torch.zeros(3, 2).numpy()),
        *(Image.new(mode, size) for mode in ("RGB", "L", "P") for size in ((2, 3), (3, 2))),
        *(torch.float16, torch.float32, torch.device("cpu"), Path("a"), Path("b"), LSDScheduler, Own),
        *(adds(1), adds(2), lambda x: x, lambda x: -x, torch.relu, torch.tanh, identity, print),
        *(Geometric(0.1, 3.0), Geometric(0.1, 4.0), SimpleNamespace(a=1), SimpleNamespace(a=2)),
    ]
    found = [identity(value) for value in values]
    assert len(set(found)) == len(found)
    assert found == [identity(value) for value in values]
    assert identity({"a": 1, "b": 2}) == identity({"b": 2, "a": 1}) and identity((1, 2)) == identity([1, 2])
    assert identity(adds(1)) == identity(adds(1))


def test_what_holds_itself_or_a_network_has_no_description() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for value in (loop, threading.Lock(), (i for i in [1]), Part(), [Part()], torch.zeros(2, device="meta")):
        with pytest.raises(Undescribable):
            identity({"value": value})
