"""The share of right answers, the calls that they took, and how they vary; each with what it does not depend on."""

from typing import Any

import numpy as np
import pytest
import torch

from lsd_sampler.evaluation.metric_sets import TaskMetrics
from lsd_sampler.evaluation.metric_sets.known_sets import check_metric_set
from lsd_sampler.evaluation.parallelism import wilson
from lsd_sampler.support.tasks import make_checker


MASK = 9


def metrics(answers: list[list[int]], canvases: list[list[int]], **options: Any) -> TaskMetrics:
    items = [{"canvas": canvas, "answer": answer} for canvas, answer in zip(canvases, answers, strict=True)]
    return TaskMetrics(items, make_checker(), [torch.tensor(canvas) for canvas in canvases], MASK, **options)


TWO = metrics([[1, 2, 3], [1, 2]], [[1, MASK, MASK], [MASK, 2]])


def test_answers_are_those_of_their_items() -> None:
    """Sample i answers item i modulo their number, and shorter ones are filled up."""
    made = torch.tensor([[1, 2, 3], [1, 2, -1], [1, 2, 3], [2, 2, -1], [1, 2, 2], [1, 2, -1]])
    row = TWO.compute(made)
    assert row["right_share"] == pytest.approx(4 / 6) and row["wrong_share"] == pytest.approx(TWO.verdict(made))
    item = torch.tensor([0, 1, 0, 1, 0, 1])
    right = torch.tensor([1.0, 1, 1, 0, 0, 1])
    assert (row["right_share_low"], row["right_share_high"]) == wilson(right, item)
    assert row["wrong_share_low"] == 1 - row["right_share_high"]
    assert row["distinct_answers"] == 2  # 2 of each


def test_calls_are_those_of_each_sample() -> None:
    row = TWO.of_calls(torch.tensor([2, 1, 4, 1]))
    assert row["mean_calls"] == 2 and row["tokens_per_call"] == pytest.approx(6 / 8)
    assert row["mean_calls_low"] < 2 < row["mean_calls_high"]


def test_answers_and_calls_are_drawn_again_alike() -> None:
    """An item that is wrong and slow is so in the same resamples."""
    many = metrics([[1]] * 40, [[MASK]] * 40)
    wrong = torch.arange(40) % 4 == 0
    row = many.compute(1 + wrong.long()[:, None]) | many.of_calls(1 + 3 * wrong.long())
    again = np.array(row["wrong_share_replicates"]), np.array(row["mean_calls_replicates"])
    assert again[1] == pytest.approx(1 + 3 * again[0], abs=1e-4)
    # the bootstrap knows the standard error of a share of 40; its own, of 200 resamples, is 5 %
    assert again[0].std() == pytest.approx((0.25 * 0.75 / 40) ** 0.5, rel=0.25)


def test_the_set_keeps_to_the_rules_of_sets() -> None:
    check_metric_set(TWO)
    made = torch.tensor([[1, 2, 3], [1, 2, -1]])
    assert set(TWO.compute(made) | TWO.of_calls(torch.tensor([1, 1]))) == set(TWO.keys)


def test_rows_of_other_items_checkers_or_intervals_are_told_apart() -> None:
    again, items = metrics([[1, 2, 3], [1, 2]], [[1, MASK, MASK], [MASK, 2]]), [[1, MASK, MASK], [MASK, 2]]
    assert again.fingerprint == TWO.fingerprint
    others = [
        metrics([[1, 2, 3], [1, 3]], items), metrics([[1, 2, 3], [1, 2]], items, checker_name="contains"),
        metrics([[1, 2, 3], [1, 2]], items, num_resamples=100),
    ]  # fmt: skip
    assert len({TWO.fingerprint, *(other.fingerprint for other in others)}) == 4
