"""The parts of the learned choice of positions: places, shares, and the greedy choice against a slow one."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.chosen_positions import BUDGETS, chosen_by_hand, kappa_between, make_choice, random_kappa, seeded

from lsd_sampler.sampling.position_choice import apart, in_order, mass_within, nats_within, num_within, within


SHAPES = {"matrix": (9,), "offset": (9,), "offset_2d": (3, 4)}


def test_places_go_by_score_and_ties_from_the_left() -> None:
    score = torch.tensor([[0.5, 0.1, 0.5, -3.0, 0.1], [1.0, 1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    is_open = torch.tensor([[True, True, True, False, True], [False] * 5])
    assert in_order(is_open, score).tolist() == [[2, 0, 3, 5, 1], [5] * 5]


@pytest.mark.parametrize(
    ("share", "num", "expected"),
    [(0.5, 4, 2), (0.5, 5, 3), (1 / 3, 3, 1), (0.1, 30, 3), (0, 9, 0), (1, 7, 7), (0.4, 0, 0)],
)
def test_shares_of_positions_are_rounded_up(share: float, num: int, expected: int) -> None:
    assert num_within(share, torch.tensor([num])).tolist() == [expected]


def test_every_number_of_positions_has_a_share() -> None:
    """Rounding does not add a position."""
    for num in range(1, 120):
        for wanted in range(num + 1):
            assert num_within(wanted / num, torch.tensor([num])).tolist() == [wanted]


@pytest.mark.parametrize(
    ("share", "taken"),
    [(0.0, []), (1e-9, [2]), (0.4, [2]), (0.5, [2]), (0.51, [2, 0]), (0.7, [2, 0]), (1.0, [0, 1, 2])],
)
def test_shares_of_nats_take_what_begins_before_them(share: float, taken: list[int]) -> None:
    mass = torch.tensor([[0.2, 0.3, 0.5, 0.0]], dtype=torch.float64)
    place = torch.tensor([[1, 2, 0, 4]])
    chosen = within(place, mass, mass_within(share, mass))
    assert chosen[0].nonzero()[:, 0].tolist() == sorted(taken)


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_shares_of_equal_nats_are_those_of_positions(size: float) -> None:
    """Whatever sums are rounded to."""
    place, mass = torch.arange(60)[None], torch.full((1, 60), size / 3, dtype=torch.float64)
    for wanted in range(61):
        assert int(within(place, mass, mass_within(wanted / 60, mass)).sum()) == wanted


@pytest.mark.parametrize("layout", SHAPES)
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("reach", [None, 2])
def test_apart_is_the_greedy_choice(layout: str, budget: str, reach: int | None) -> None:
    """Rows with other numbers of open positions, buckets, scores and limits, against loops over positions."""
    shape = SHAPES[layout]
    B, L = 24, math.prod(shape)
    dependence = random_kappa(layout, shape)
    if reach is not None and layout != "matrix":
        dependence = replace(dependence, kappa=dependence.kappa[(slice(None), *(slice(reach) for _ in shape))])
    generator = seeded(1)
    open_BL = torch.rand(B, L, generator=generator) < torch.linspace(0, 1, B)[:, None]
    H_BL = (0.1 + torch.rand(B, L, generator=generator, dtype=torch.float64)) * open_BL
    order_BL = torch.rand(B, L, generator=generator).argsort(1)
    num_B, bucket_B, choice = (
        open_BL.sum(1),
        dependence.bucket(open_BL),
        make_choice([0.45, 1], budget, redundancy=1, random=0.6),
    )
    mean_B = (H_BL.sum(1) / num_B.clamp(min=1)).clamp(min=1e-5)
    score_BL = 0.6 * in_order(open_BL, order_BL.argsort(1).double()).double() / num_B.clamp(min=1)[:, None]
    limit_B, needed_B = None, num_within(0.45, num_B)
    if budget != "position_shares":
        limit_B, needed_B = (mass_within if budget == "entropy_shares" else nats_within)(0.45, H_BL), num_B
    place_BL = apart(
        open_BL, score_BL, H_BL, 1 / mean_B, dependence.on(shape, torch.device("cpu")), bucket_B, needed_B, limit_B
    )
    chosen_BL = place_BL < needed_B[:, None] if limit_B is None else within(place_BL, H_BL, limit_B)
    assert bool((place_BL[~open_BL] == L).all())
    for row in range(B):
        kappa = kappa_between(dependence, shape, L - int(num_B[row]))
        order = order_BL[row].tolist()
        expected = chosen_by_hand(H_BL[row].tolist(), open_BL[row].tolist(), kappa, choice, 0, order, order)
        assert set(chosen_BL[row].nonzero()[:, 0].tolist()) == expected
        placed = sorted(place_BL[row][place_BL[row] < L].tolist())
        assert placed == list(range(len(placed)))


def test_apart_without_dependence_goes_by_score() -> None:
    dependence = replace(random_kappa("offset", (8,)), kappa=torch.zeros(1, 8, dtype=torch.float64))
    open_BL, score_BL = torch.rand(5, 8) < 0.7, torch.rand(5, 8, dtype=torch.float64)
    ones_B, canvas = torch.ones(5, dtype=torch.float64), dependence.on((8,), torch.device("cpu"))
    place_BL = apart(open_BL, score_BL, score_BL, ones_B, canvas, torch.zeros(5).long(), open_BL.sum(1))
    assert torch.equal(place_BL, in_order(open_BL, score_BL))
