"""What follows from a recipe: batches, and what a batch of sequences costs."""

import pytest

from lsd_sampler import DistillConfig
from lsd_sampler.training.teacher_plan import TeacherPlan


@pytest.mark.parametrize(("num", "batches"), [(1, 1), (4, 1), (5, 2), (8, 2)])
def test_the_last_batch_may_be_smaller(num: int, batches: int) -> None:
    config = DistillConfig(method="path_kl", nfe=(2,), num_sequences=num, batch_size=4)
    assert config.resolve(TeacherPlan(16, 1, 16, 4)).num_batches == batches


@pytest.mark.parametrize(("paths", "steps"), [("teacher", 16), ("bootstrap", 10), ("data", 0)])
def test_a_source_costs_its_steps(paths: str, steps: int) -> None:
    config = DistillConfig(method="path_kl", nfe=(2,), paths=paths, bootstrap_steps=10)
    assert config.resolve(TeacherPlan(16, 1, 16, 4), paths == "data").source_steps == steps


def test_a_bootstrap_has_no_more_steps_than_there_are_tokens() -> None:
    config = DistillConfig(method="path_kl", nfe=(2,), paths="bootstrap", bootstrap_steps=64)
    assert config.resolve(TeacherPlan(16, 1, 1024, 4)).source_steps == 16


def test_an_order_to_be_chosen_is_that_of_the_forward_process() -> None:
    plan = TeacherPlan(16, 1, 16, 4)
    assert DistillConfig(nfe=(2,)).resolve(plan).order == "random"
    assert DistillConfig(method="path_kl", nfe=(2,)).resolve(plan).order == "halton"
    recipe = DistillConfig(method="lsd", nfe=(2,), solver="euler").resolve(plan)
    assert recipe.teacher_solver == "euler"
