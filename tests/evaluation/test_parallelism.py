"""Intervals of shares, swept samplers read off at equal mean calls, and AUP by its formula."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from lsd_sampler.evaluation.parallelism import (
    aup,
    aup_of_samplers,
    read_at_calls,
    undominated,
    wilson,
    with_mean_calls,
)


def answers(num_right: int, num: int) -> torch.Tensor:
    return (torch.arange(num) < num_right).double()


@pytest.mark.parametrize(
    ("right", "num", "low", "high"),
    # statsmodels.stats.proportion.proportion_confint(right, num, method="wilson")
    [(5, 10, 0.23659, 0.76341), (0, 20, 0.0, 0.16113), (20, 20, 0.83887, 1.0), (90, 100, 0.82563, 0.94477)],
)
def test_wilson_has_the_known_values(right: int, num: int, low: float, high: float) -> None:
    assert wilson(answers(right, num)) == pytest.approx((low, high), abs=1e-5)


def test_several_answers_to_an_item_count_by_how_much_they_differ() -> None:
    """Copies add nothing; independent answers count each; the truth is between, for any number of items."""
    right, item = answers(30, 60), torch.arange(60)
    alone = wilson(right, item)
    assert alone == pytest.approx(wilson(right))
    copies = wilson(right.repeat(4), item.repeat(4))
    assert copies == pytest.approx(alone, abs=1e-2) and copies[1] - copies[0] >= (alone[1] - alone[0]) * 0.98
    fresh = (torch.rand(4000, generator=torch.Generator().manual_seed(0)) < 0.5).double()
    ends = np.array(wilson(fresh, torch.arange(4000) % 1000)), np.array(wilson(fresh))
    # the effective number is estimated from 1000 items: 5 standard errors are 5 * sqrt(2 / 1000) of it
    assert np.diff(ends[0]) / np.diff(ends[1]) == pytest.approx(1, abs=5 * math.sqrt(2 / 1000) / 2)


def test_wilson_covers_as_often_as_it_says() -> None:
    """Of 2000 sets of 4 answers to each of 50 items of unequal difficulty; 95 % to five standard errors."""
    generator, covered = torch.Generator().manual_seed(0), 0
    item = torch.arange(200) % 50
    for _ in range(2000):
        difficulty = torch.rand(50, generator=generator)
        right = (torch.rand(200, generator=generator) < difficulty[item]).double()
        low, high = wilson(right, item)
        covered += low <= 0.5 <= high
    assert covered / 2000 >= 0.95 - 5 * math.sqrt(0.95 * 0.05 / 2000)


def point(
    constant: float, calls: float, wrong: float, spread: float = 0.0, noise_in_calls: float = 0.0
) -> dict[str, Any]:
    noise = np.random.default_rng(0).normal(size=(2, 400))
    return {
        "sampler": f"x@c={constant}", "nfe": 50, "temperature": 1.0, "num_samples": 8, "length": 50,
        "mean_calls": calls, "wrong_share": wrong, "right_share": 1 - wrong, "tokens_per_call": 50 / calls,
        "wrong_share_low": wrong - 1.96 * spread, "wrong_share_high": wrong + 1.96 * spread,
        "distinct_answers": 1.0, "wrong_share_replicates": list(wrong + spread * noise[0]),
        "mean_calls_replicates": list(calls + noise_in_calls * noise[1]),
    }  # fmt: skip


def test_a_swept_sampler_is_read_off_at_equal_mean_calls() -> None:
    """In the logarithm of the calls, whatever the order of the rows; nothing beyond them."""
    curve = [point(2, 8, 0.2, 0.01), point(0, 2, 0.8, 0.01), point(1, 4, 0.4, 0.01)]
    readings, notes = read_at_calls(curve, "x@c=0/1/2", [1, 2, math.sqrt(32), 16])
    assert [row["nfe"] for row in readings] == [2, math.sqrt(32), 16]
    assert [row["wrong_share"] for row in readings] == pytest.approx([0.8, 0.3, 0.2])
    assert [row["mean_calls"] for row in readings] == pytest.approx([2, math.sqrt(32), 8])
    assert all(row["tokens_per_call"] == pytest.approx(50 / row["mean_calls"]) for row in readings)
    assert all(row["sampler"] == "x@c=0/1/2" and row["right_share"] == 1 - row["wrong_share"] for row in readings)
    for row in readings:  # 1.96 standard errors of 0.01 to each side; 400 replicates give the ends to 10 %
        assert row["wrong_share_high"] - row["wrong_share_low"] == pytest.approx(2 * 1.96 * 0.01, rel=0.15)
        assert row["right_share_low"] == pytest.approx(1 - row["wrong_share_high"])
        assert len(row["wrong_share_replicates"]) == 400
    assert notes == ["x@c=0/1/2 takes 2.0 calls or more on average: it is not read off at 1."]


def test_constants_that_take_more_calls_for_less_are_not_read_between() -> None:
    rows = [point(0, 3.0, 0.1), point(1, 2.9, 0.0), point(2, 1.0, 0.9), point(3, 1.0, 0.8), point(4, 2.0, 0.8)]
    assert [row["sampler"] for row in undominated(rows)] == ["x@c=3", "x@c=1"]
    assert undominated(undominated(rows)) == undominated(rows)


def test_calls_that_are_not_known_exactly_widen_the_interval() -> None:
    sure, unsure = (
        read_at_calls([point(0, 2, 0.8, noise_in_calls=n), point(1, 8, 0.2, noise_in_calls=n)], "x", [4])[0][0]
        for n in (0.0, 0.2)
    )
    assert sure["wrong_share_low"] == sure["wrong_share_high"] == pytest.approx(0.5)
    assert unsure["wrong_share_low"] < 0.49 < 0.51 < unsure["wrong_share_high"]


def test_aup_is_the_area_where_no_accuracy_is_lost() -> None:
    assert aup([(1, 0.8), (2, 0.8), (5, 0.8)], best=0.8) == pytest.approx(5 * 80)
    assert aup([(1, 0.8)], best=0.9) == pytest.approx(80)


def test_aup_weighs_lost_accuracy_and_leaves_out_what_lost_too_much() -> None:
    by_hand = 80 + (2 - 1) * (80 + 76 * math.exp(-3 * (1 - 76 / 80))) / 2
    assert aup([(2, 0.76), (1, 0.8)], best=0.8) == pytest.approx(by_hand)
    assert aup([(2, 0.76), (1, 0.8), (3, 0.749)], best=0.8) == pytest.approx(by_hand)
    assert aup([(1, 0.8), (2, 0.76)], best=0.95) < by_hand
    assert aup([(1, 0.0), (2, 0.0)], best=0.0) == 0
    for points in ([], [(0, 0.5)]):
        with pytest.raises(ValueError, match="`points`"):
            aup(points, best=1.0)


def test_aup_of_a_swept_sampler_is_that_of_all_its_constants() -> None:
    curve = [point(0, 2, 0.8) | {"read": "yes"}, point(1, 50, 0.76) | {"read": "yes"}]
    curve.append(point(2, 3, 0.9) | {"read": None})
    fixed = [point(5, 25, 0.7) | {"sampler": "base"}]
    readings, _ = read_at_calls(curve, "x", [4])
    found = {row["sampler"]: row for row in aup_of_samplers([*fixed, *readings], {"x": curve})}
    assert found["x"]["aup"] == pytest.approx(aup([(1, 0.24), (25, 0.2)], best=0.3))
    assert found["x"]["points"] == 2 and found["base"]["from_tokens"] == 2


def distance(calls: float, value: float, vary: bool = True) -> dict[str, Any]:
    noise = np.random.default_rng(1).normal(size=(2, 400))
    row = {
        "sampler": f"x@c={calls}", "nfe": 50, "temperature": 1.0, "num_samples": 8, "length": 50, "kl": value,
        "kl_low": value - 0.02, "kl_high": value + 0.02, "kl_replicates": list(value + 0.01 * noise[0]),
        "network_calls": calls,
    }  # fmt: skip
    more = {"mean_calls": calls, "mean_calls_replicates": list(calls + 0.1 * noise[1])}
    return row | (more if vary else {})


def test_a_distance_is_read_off_like_a_share() -> None:
    """Above 1 too, and without the shares of answers."""
    curve = [distance(2, 3.0), distance(8, 1.0)]
    (row,), notes = read_at_calls(curve, "x", [4], key="kl")
    assert row["kl"] == pytest.approx(2.0) and row["kl_low"] < 2.0 < row["kl_high"] and row["mean_calls"] == 4
    assert row["kl_high"] > 1 and "right_share" not in row and "wrong_share" not in row and notes == []
    assert [found["sampler"] for found in undominated([*curve, distance(5, 3.5)], "kl")] == ["x@c=2", "x@c=8"]


def test_calls_that_do_not_vary_have_no_interval() -> None:
    row = with_mean_calls(distance(4, 1.0, vary=False), "kl")
    assert (row["mean_calls"], row["mean_calls_low"], row["mean_calls_high"]) == (4, 4, 4)
    (read,), _ = read_at_calls([row, with_mean_calls(distance(2, 3.0, vary=False), "kl")], "x", [4], key="kl")
    assert read["kl"] == pytest.approx(1.0)
    assert with_mean_calls(row, "kl") is row
