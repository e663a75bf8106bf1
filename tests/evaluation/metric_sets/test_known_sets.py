"""Metric sets that come with the package, and what is refused of one's own."""

from typing import Any

import pytest
from helpers.evaluation_fakes import FakePipeline, FakeSampler, Task

from lsd_sampler.evaluation import METRIC_SETS, Harness, Layout, Metric


def test_no_two_sets_mean_different_things_by_one_key() -> None:
    found: dict[str, Metric] = {}
    for name in METRIC_SETS.names():
        for metric in METRIC_SETS[name].metrics:
            assert found.setdefault(metric.key, metric) == metric


@pytest.mark.parametrize(
    ("attribute", "value", "words"),
    [
        ("verdict_key", "typo", "`verdict_key` of Task is 'typo', which none of its `metrics` has"),
        (
            "verdict_key",
            "share_right",
            "`verdict_key` of Task is 'share_right', which must have",
        ),
        ("likelihood_key", "typo", "`likelihood_key` of Task is 'typo'"),
        ("likelihood_key", "share_wrong", "`entropy_key` of Task must be given"),
        ("replicates", ("typo",), "`replicates` of Task is 'typo'"),
        ("metrics", Task.metrics * 2, "`metrics` of Task must have different keys"),
        ("metrics", (), "`verdict_key` of Task is 'share_wrong', which none of its `metrics` has"),
    ],
)
def test_a_set_that_cannot_be_compared_by_is_refused(attribute: str, value: Any, words: str) -> None:
    metrics, pipeline = Task(), FakePipeline()
    setattr(metrics, attribute, value)
    with pytest.raises(ValueError) as error:
        Harness(pipeline, {"a": FakeSampler(3)}, metrics, num_samples=4)
    assert str(error.value).startswith(words) and not pipeline.calls


def test_what_is_no_metric_set_is_refused() -> None:
    class Own:
        verdict_key, likelihood_key, entropy_key, keys = "x", None, "unigram_entropy", ("x",)

    with pytest.raises(ValueError, match="`metrics` must be a `MetricSet`, got Own"):
        Harness(FakePipeline(), {"a": FakeSampler(3)}, Own(), num_samples=4)  # pyright: ignore[reportArgumentType]


def test_a_layout_that_names_nothing_is_refused() -> None:
    class Typo(Task):
        def layout(self) -> Layout:
            return Layout(("share_rigth",), (), ())

    with pytest.raises(ValueError, match="`layout` of Typo names 'share_rigth'"):
        Harness(FakePipeline(), {"a": FakeSampler(3)}, Typo(), num_samples=6)
