"""Rows that a solver remembers of the positions that were masked."""

import torch

from lsd_sampler.sampling.solvers.remembered import Rows


def test_rows_by_position() -> None:
    rows = Rows(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[-1, 1, -1], [0, -1, -1]]))
    at = rows.at(torch.tensor([1, 0, 0]), torch.tensor([0, 1, 2]))
    assert at.tolist() == [[1, 2], [3, 4], [0, 0]]  # 0 where there is none
    assert rows.as_logits().rows(torch.tensor([0]), torch.tensor([1])).tolist() == [[3, 4]]
    assert Rows(torch.empty(0, 2), torch.full((1, 3), -1)).at(torch.tensor([0]), torch.tensor([2])).tolist() == [
        [0, 0]
    ]
