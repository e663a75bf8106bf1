"""Which sequences a process works on, and in what batches."""

from typing import Any

import pytest

from lsd_sampler import DistillConfig, LSDScheduler
from lsd_sampler.support.workers import Workers
from lsd_sampler.training.progress import Progress
from lsd_sampler.training.task import Task
from lsd_sampler.training.teacher_plan import TeacherPlan


def task(num: int, batch_size: int, **fields: Any) -> Task:
    config = DistillConfig(method="lsd", nfe=(2,), num_sequences=num, batch_size=batch_size)
    runs: Any = None
    recipe = config.resolve(TeacherPlan(8, 1, 8, 5))
    return Task(runs, LSDScheduler(mask_token_id=5), recipe, lambda **_: None, Progress(), **fields)


@pytest.mark.parametrize("first", [0, 100])
@pytest.mark.parametrize(("num", "batch_size"), [(1, 4), (8, 4), (10, 4), (3, 64)])
def test_batches_are_the_sequences_in_order(num: int, batch_size: int, first: int) -> None:
    batches = task(num, batch_size, first=first).batches()
    assert [i for batch in batches for i in batch] == list(range(first, first + num))
    assert all(len(batch) == batch_size for batch in batches[:-1]) and 0 < len(batches[-1]) <= batch_size


def test_processes_share_the_sequences() -> None:
    shares = [task(12, 4, workers=Workers(rank, 3), first=5).sequences for rank in range(3)]
    assert [i for share in shares for i in share] == list(range(5, 17))
    assert [len(share) for share in shares] == [4, 4, 4]
