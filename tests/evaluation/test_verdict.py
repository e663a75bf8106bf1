"""The headline and the winners: calls at matched quality, by more than chance or not."""

import math
from typing import Any

import numpy as np
import pytest

from lsd_sampler.evaluation import calls_to_reach, matched_calls, winners


def judged(sampler: str, nfe: int, value: float, spread: float = 0.0) -> dict[str, Any]:
    noise = np.random.default_rng([len(sampler), nfe]).normal(size=400)
    ends = {"x_low": value - 2 * spread, "x_high": value + 2 * spread}
    return {"sampler": sampler, "nfe": nfe, "x": value, **ends, "x_replicates": list(value + spread * noise)}


BASE = [judged("base", nfe, 16.0 / nfe, 0.01) for nfe in (4, 8, 16, 32)]


def test_calls_to_reach_interpolates_in_log_nfe() -> None:
    nfe, values = [4, 8, 16, 32], [4.0, 2.0, 1.0, 0.5]
    assert calls_to_reach(nfe, values, 2.0) == pytest.approx(8)
    assert calls_to_reach(nfe, values, 1.5) == pytest.approx(math.sqrt(8 * 16))
    assert calls_to_reach(nfe, values, 9.0) == 4
    assert calls_to_reach(nfe, values, 0.4) == math.inf
    assert calls_to_reach(nfe, [4.0, 1.0, 3.0, 0.5], 2.0) < 8  # where it first gets there


def test_headline_says_how_many_calls_the_base_needs() -> None:
    (found,) = matched_calls([*BASE, judged("ours", 8, 0.75, 0.01), judged("ours", 4, 1.0)], "base", "x")
    assert found.calls == pytest.approx(math.sqrt(16 * 32))
    assert found.low < found.calls < found.high and found.high - found.low < 2
    assert found.saved == pytest.approx(found.calls / 8) and found.level is None
    assert found.sentence().startswith("base needs 22.6 calls (")


def test_headline_extrapolates_nothing() -> None:
    floor = {"x_high": 0.012}
    best, edge, worst = matched_calls(
        [*BASE, judged("best", 8, 0.01), judged("edge", 8, 0.5, 0.05), judged("worst", 8, 5.0)],
        "base",
        "x",
        floor=floor,
    )
    assert best.calls == best.low == math.inf and best.level is True
    assert best.sentence() == "base does not reach within 32 calls what best has at 8 calls."
    assert edge.level is False and edge.high == math.inf and np.isfinite(edge.low)
    assert "more than 32" in edge.sentence() or "or more" in edge.sentence()
    assert worst.calls == 4 and worst.sentence() == "base reaches with 4 calls or fewer what worst has at 8 calls."
    assert matched_calls([judged("ours", 8, 1.0)], "base", "x") == []


def test_no_headline_says_that_one_call_is_as_many_as_another() -> None:
    """Where nothing beyond was measured there is no ratio."""
    (found,) = matched_calls([*BASE[:2], judged("best", 8, 0.01)], "base", "x")
    assert found.headline() == "not within 8 calls"
    (found,) = matched_calls([*BASE, judged("best", 8, 0.01)], "base", "x")
    assert found.headline() == "> 4.0× fewer calls"


def test_headline_says_nothing_where_nothing_is_known() -> None:
    """The base at one number of calls has no curve; an interval of all numbers that were tried is none."""
    assert matched_calls([BASE[1], judged("ours", 8, 1.0), judged("ours", 4, 2.0)], "base", "x") == []
    noisy = [judged("base", nfe, 1 + 0.1 / nfe, 1.0) for nfe in (4, 8, 16, 32)]
    between, beyond = matched_calls([*noisy, judged("ours", 8, 1.01, 1.0), judged("best", 8, 1.0, 1.0)], "base", "x")
    for found in (between, beyond):
        assert (found.low, found.high) == (4, math.inf)
    assert between.calls == pytest.approx(8 * 2**0.4)
    few = "(too few samples for an interval)"
    assert between.sentence() == f"base needs 10.6 calls {few} for what ours has at 8 calls."
    assert beyond.sentence() == f"base does not reach within 32 calls what best has at 8 calls {few}."


def test_winners_lead_by_more_than_chance_or_not() -> None:
    rows = [*BASE, judged("ours", 8, 1.0, 0.01), judged("ours", 16, 0.999, 0.1), judged("third", 16, 3.0)]
    four, eight, sixteen, _ = winners(rows, "x")
    assert (four.sampler, four.second) == ("base", None)
    assert (eight.sampler, eight.second, eight.lead) == ("ours", "base", pytest.approx(1.0))
    assert 0.9 < eight.low < 1.0 < eight.high < 1.1 and ", by more than chance" in eight.sentence()
    assert (sixteen.sampler, sixteen.second) == ("ours", "base")
    assert sixteen.low < 0 < sixteen.high and "not by more than chance" in sixteen.sentence()
