"""Fixtures of several test files on training."""

import pytest
import torch

from lsd_sampler.training.student_comparison import Comparison


@pytest.fixture
def comparison() -> Comparison:
    """Two predictions that differ, with a mask column that is to be ignored, in float64."""
    generator = torch.Generator().manual_seed(3)
    teacher, student = (torch.randn(4, 6, 8, generator=generator, dtype=torch.float64) * 2 for _ in range(2))
    student = 0.7 * teacher + 0.5 * student
    teacher[:, :, 7], student[:, :, 7] = 40.0, 55.0
    student[0, 0, 1] = teacher[0, 0, 1] = -torch.inf
    row_R, position_R = (torch.rand(4, 6, generator=generator) < 0.7).nonzero(as_tuple=True)
    return Comparison(teacher, student, row_R, position_R, excluded=7)
