"""The tokens around a text."""

import pytest
import torch

from lsd_sampler.denoisers.frames import Frame, held_frame, without_frame


ROWS = torch.tensor([[7, 1, 2, 8, 9], [7, 3, 4, 8, 9]])


@pytest.mark.parametrize(
    ("frame", "held"),
    [
        (None, (0, 0)),
        (((), ()), (0, 0)),
        (((7,), (8, 9)), (1, 2)),
        (((7,), ()), (1, 0)),
        (((7,), (9, 8)), (1, 0)),
        (((7, 1), (9,)), (0, 1)),  # not of the second row
        (((7,) * 6, (9,)), (0, 1)),
    ],
)
def test_what_all_rows_hold_is_the_frame(frame: Frame | None, held: tuple[int, int]) -> None:
    assert held_frame(ROWS, frame) == held
    assert torch.equal(without_frame(ROWS, frame), ROWS[:, held[0] : 5 - held[1]])


def test_a_frame_leaves_something_between() -> None:
    assert torch.equal(without_frame(torch.tensor([[7, 9]]), ((7,), (9,))), torch.tensor([[7, 9]]))
