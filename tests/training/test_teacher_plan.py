"""What a call asks of a sampler: steps enough for every student, images, noise without masks."""

import pytest

from lsd_sampler.sampling.diffusers_calls import NO_MASK
from lsd_sampler.training.teacher_plan import TeacherPlan


@pytest.mark.parametrize(("nfe", "steps"), [((4,), 16), ((4, 16), 16), ((4, 64), 64), ((64, 4), 64)])
def test_a_teacher_has_no_fewer_steps_than_its_students(nfe: tuple[int, ...], steps: int) -> None:
    plan = TeacherPlan(16, 2, 16, 4, num_columns=5)
    assert plan.for_nfe(nfe) == TeacherPlan(16, 2, steps, 4, num_columns=5)


def test_what_a_canvas_is() -> None:
    assert TeacherPlan(16, 1, 16, 4, row_length=4).is_image and not TeacherPlan(16, 1, 16, 4).is_image
    assert TeacherPlan(16, 1, 16, 0).has_mask and not TeacherPlan(16, 1, 16, NO_MASK).has_mask
