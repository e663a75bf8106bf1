"""Rows that a solver remembers of the positions that were masked."""

import torch

from lsd_sampler.sampling.solvers.remembered import Rows


def values(rows: Rows) -> list[list[float]]:
    """The number of each position, of rows of one."""
    row_R, position_R = torch.ones_like(rows.row_BL).nonzero(as_tuple=True)
    return rows.at(row_R, position_R).view(rows.row_BL.shape).tolist()


def test_rows_of_some_positions() -> None:
    at_BL = torch.tensor([[True, False, True], [False, True, False]])
    assert values(Rows.of(torch.tensor([[1.0], [2.0], [3.0]]), at_BL)) == [[1, 0, 2], [0, 3, 0]]


def test_rows_of_either_are_no_more_than_needed() -> None:
    """However often rows are chosen, those of sequences that were not chosen go."""
    every_BL = torch.ones(2, 3, dtype=torch.bool)
    one, two = (Rows.of(torch.arange(first, first + 6.0)[:, None], every_BL) for first in (0, 10))
    either = one.where(torch.tensor([[True], [False]]), two)
    assert values(either) == [[0, 1, 2], [13, 14, 15]] and len(either.value_RV) == 6
    nothing = Rows.of(torch.empty(0, 1), torch.zeros(2, 3, dtype=torch.bool))
    assert values(nothing.where(torch.tensor([[True], [False]]), two)) == [[0, 0, 0], [13, 14, 15]]


def test_rows_by_position() -> None:
    rows = Rows(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[-1, 1, -1], [0, -1, -1]]))
    at = rows.at(torch.tensor([1, 0, 0]), torch.tensor([0, 1, 2]))
    assert at.tolist() == [[1, 2], [3, 4], [0, 0]]  # 0 where there is none
    assert rows.as_logits().rows(torch.tensor([0]), torch.tensor([1])).tolist() == [[3, 4]]
    assert Rows(torch.empty(0, 2), torch.full((1, 3), -1)).at(torch.tensor([0]), torch.tensor([2])).tolist() == [
        [0, 0]
    ]
