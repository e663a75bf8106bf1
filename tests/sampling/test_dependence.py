"""Kappa between the positions of a canvas: each layout against its description, position by position."""

import math

import pytest
import torch
from helpers.chosen_positions import kappa_between, random_kappa

from lsd_sampler.sampling.dependence import Dependence


CPU = torch.device("cpu")
CASES = [
    ("matrix", (6,), None), ("matrix", (2, 3), None), ("offset", (1,), None), ("offset", (7,), None),
    ("offset", (7,), (3,)), ("offset", (7,), (12,)), ("offset", (30,), (2,)), ("offset_2d", (3, 4), None),
    ("offset_2d", (1, 5), None), ("offset_2d", (6, 5), (2, 1)), ("offset_2d", (6, 5), (1, 2)),
    ("offset_2d", (6, 5), (2, 2)), ("offset_2d", (3, 3), (9, 2)),
]  # fmt: skip
EACH_CASE = pytest.mark.parametrize(("layout", "shape", "learned"), CASES, ids=str)


def made(layout: str, shape: tuple[int, ...], learned: tuple[int, ...] | None) -> Dependence:
    return random_kappa(layout, shape if learned is None else learned)


def masked_rows(length: int) -> torch.Tensor:
    """Canvases of which 0, 1, ..., all positions but one are known."""
    return torch.arange(length)[None] >= torch.arange(length)[:, None]


@EACH_CASE
def test_gain_is_what_a_position_tells_about_all_others(
    layout: str, shape: tuple[int, ...], learned: tuple[int, ...] | None
) -> None:
    dependence, masked_BL = made(layout, shape, learned), masked_rows(math.prod(shape))
    H_BL = torch.rand(masked_BL.shape, dtype=torch.float64) * masked_BL
    gain_BL = dependence.on(shape, CPU).gain(H_BL, dependence.bucket(masked_BL))
    for known, (H_L, gain_L) in enumerate(zip(H_BL, gain_BL, strict=True)):
        kappa_LL = torch.tensor(kappa_between(dependence, shape, known), dtype=torch.float64)
        expected_L = (kappa_LL * torch.minimum(H_L[:, None], H_L)).sum(1)
        torch.testing.assert_close(gain_L, expected_L, rtol=0, atol=1e-12)


@EACH_CASE
def test_near_are_the_positions_that_depend_on_one(
    layout: str, shape: tuple[int, ...], learned: tuple[int, ...] | None
) -> None:
    dependence, L = made(layout, shape, learned), math.prod(shape)
    canvas = dependence.on(shape, CPU)
    masked_BL = masked_rows(L)
    place_BP = canvas.laid_out(torch.arange(L).expand(L, L), -1)
    assert torch.equal(canvas.taken_back(place_BP), torch.arange(L).expand(L, L))
    for j in range(L):
        place_B1 = (place_BP == j).long().argmax(1, keepdim=True)
        index_BW, kappa_BW = canvas.near(place_B1, dependence.bucket(masked_BL))
        found_BP = torch.zeros(place_BP.shape, dtype=torch.float64)
        found_BP = kappa_BW if index_BW is None else found_BP.scatter_add(1, index_BW, kappa_BW)
        for known, found_L in enumerate(canvas.taken_back(found_BP)):
            assert found_L.tolist() == kappa_between(dependence, shape, known)[j]


def test_a_dependence_that_reaches_a_few_positions_looks_up_a_few() -> None:
    """Both ways of looking up are used by the cases above."""
    for size, num in ((2, 3), (16, 31), (600, None)):
        dependence = random_kappa("offset", (size,))
        index, kappa = dependence.on((1000,), CPU).near(torch.tensor([[500]]), torch.tensor([0]))
        assert (None if index is None else index.shape[1]) == num
        assert kappa.shape[1] == (num or 1000)


def test_it_is_made_once_for_a_kind_of_canvas() -> None:
    dependence = random_kappa("offset", (5,))
    first = dependence.on((20,), CPU)
    assert dependence.on((20,), CPU) is first and dependence.on((21,), CPU) is not first
    for length in range(30, 60):  # it does not fill the memory either
        dependence.on((length,), CPU)
    assert sum(dependence.on((length,), CPU) is not None for length in (20, 21)) == 2


@pytest.mark.parametrize(("num_buckets", "length"), [(1, 5), (3, 3), (4, 10), (7, 3)])
def test_buckets_divide_the_share_of_known_positions(num_buckets: int, length: int) -> None:
    dependence = random_kappa("offset", (4,), num_buckets=num_buckets)
    masked_BL = torch.arange(length)[None] >= torch.arange(length + 1)[:, None]
    expected = [min(num_buckets - 1, math.floor(known / length * num_buckets + 1e-9)) for known in range(length + 1)]
    assert dependence.bucket(masked_BL).tolist() == expected


@pytest.mark.parametrize(
    ("layout", "learned", "shape", "words"),
    [
        ("matrix", (6,), (7,), "canvases of 6 positions, this one has 7"),
        ("offset_2d", (2, 3), (6,), r"images of rows and columns.*\(6,\)"),
        ("offset", (6,), (2, 3), r"learned for texts.*\(2, 3\)"),
    ],
)
def test_other_kinds_of_canvases_are_refused(
    layout: str, learned: tuple[int, ...], shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        random_kappa(layout, learned).on(shape, CPU)
