"""Options of all methods: what is decided where nothing is said."""

from typing import Any

import pytest

from lsd_sampler import DistillConfig
from lsd_sampler.training.teacher_plan import TeacherPlan


def test_many_steps_are_replaced_by_a_bootstrap_unless_they_are_asked_for() -> None:
    few, many = (TeacherPlan(1024, 1, steps, 5) for steps in (256, 1024))
    config = DistillConfig(method="path_kl")
    assert config.resolve(few).source == "teacher"
    assert config.resolve(many).source == "bootstrap"
    assert config.resolve(many, has_data=True).source == "data"
    assert DistillConfig(method="path_kl", paths="teacher").resolve(many).source == "teacher"
    assert DistillConfig(method="lsd").resolve(many).source == "teacher"


@pytest.mark.parametrize(
    ("options", "time_conditioned", "steps"),
    [
        ({}, False, 32),
        ({}, True, 1024),
        ({"count": "bernoulli"}, False, 1024),
        ({"teacher_solver": "predictor_corrector"}, False, 1024),
        ({"teacher_steps": 20}, False, 20),
        ({"nfe": (4, 48)}, False, 48),
    ],
)
def test_a_teacher_takes_no_more_steps_than_make_a_difference(
    options: dict[str, Any], time_conditioned: bool, steps: int
) -> None:
    """For 32 masked positions; but never fewer than its students."""
    config = DistillConfig(**{"method": "lsd", "nfe": (4, 8), **options})
    assert config.teacher_steps_for(32, time_conditioned) == steps
