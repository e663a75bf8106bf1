"""The teacher's canvases at a student's times, from what was kept of its run."""

import torch

from lsd_sampler.training.paths import TeacherPath
from lsd_sampler.training.recording import RecordedCanvas
from lsd_sampler.training.teacher_canvases import Canvases, student_times


MASK = 9


def test_a_students_times_are_evenly_spread_over_the_teachers_steps() -> None:
    assert student_times(4, 16) == [0, 4, 8, 12]
    assert student_times(3, 16) == [0, 5, 11]
    assert student_times(16, 16) == list(range(16))


def test_a_path_is_masked_where_it_is_not_yet_revealed() -> None:
    """The first token was given; the others are revealed in steps 0, 1, 2 and 3."""
    final_BL, step_BL = torch.tensor([[5, 6, 7, 8, 5]]), torch.tensor([[-1, 3, 1, 0, 2]], dtype=torch.int32)
    (states,) = Canvases([TeacherPath(step_BL >= 0, final_BL, step_BL)], 4, MASK).at(2)
    assert [state.tolist() for state in states] == [[[5, 9, 9, 9, 9]], [[5, 9, 7, 8, 9]], [[5, 6, 7, 8, 5]]]


def test_recorded_states_are_as_they_were_and_those_after_the_end_are_the_end() -> None:
    final_BL, start_BL = torch.tensor([[5, 6]]), torch.tensor([[MASK, MASK]])
    recorded = RecordedCanvas(start_BL == MASK, final_BL, {0: start_BL})
    (states,) = Canvases([recorded], 8, MASK).at(2)
    assert [state.tolist() for state in states] == [[[MASK, MASK]], [[5, 6]], [[5, 6]]]
