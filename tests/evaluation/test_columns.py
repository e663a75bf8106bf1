"""Columns of metrics: their own, and those of the ends of their intervals."""

import pytest

from lsd_sampler.evaluation import Metric
from lsd_sampler.evaluation.columns import CIRCUMSTANCES, headings, present, with_ends


@pytest.mark.parametrize(("short", "ends"), [(None, ["a rate low", "a rate high"]), ("", ["low", "high"])])
def test_ends_of_an_interval_are_columns_of_their_own(short: str | None, ends: list[str]) -> None:
    metric = Metric("x", "a rate", "A rate.", True, interval=True, short=short, digits=2)
    assert list(headings(metric.columns)) == list(with_ends("x")) == ["x", "x_low", "x_high"]
    assert list(headings(metric.columns).values()) == ["a rate", *ends]
    assert {column.digits for column in metric.columns} == {2} and all(column.meaning for column in metric.columns)
    assert Metric("x", "a rate").columns == (Metric("x", "a rate"),)


def test_columns_without_a_value_are_left_out() -> None:
    rows = [{"sampler": "a", "nfe": None, "length": 0}, {"seconds": 1.5}]
    assert list(headings(present(CIRCUMSTANCES, rows))) == ["sampler", "length", "seconds"]
