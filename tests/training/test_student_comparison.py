"""Teacher and student in one step: coefficients are the minima that they should be."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from lsd_sampler.sampling.corruptions import Uniform
from lsd_sampler.sampling.moves import TokenMoves
from lsd_sampler.sampling.noise import LogLinear
from lsd_sampler.sampling.solvers import SOLVERS
from lsd_sampler.training.student_comparison import Comparison, MovesComparison


def test_what_the_student_cannot_say_does_not_flatten_the_rest() -> None:
    """Only its possible tokens are scaled when it samples, so only they are compared."""
    possible = torch.tensor([0.0, -1.0, -2.0], dtype=torch.float64)
    student = torch.cat([possible, torch.tensor([-torch.inf])])[None, None]
    teacher = torch.cat([2 * possible, torch.tensor([1.0])])[None, None]
    first = torch.zeros(1, dtype=torch.long)
    comparison = Comparison(teacher, student, first, first, excluded=None)
    assert comparison.best_beta() == pytest.approx(2.0, abs=1e-6)


def test_single_precision_changes_coefficients_by_rounding_only(comparison: Comparison) -> None:
    single = dataclasses.replace(
        comparison, teacher_BLV=comparison.teacher_BLV.float(), student_BLV=comparison.student_BLV.float()
    )
    assert single.best_beta() == pytest.approx(comparison.best_beta(), abs=1e-5)
    assert single.log_score_sums() == pytest.approx(comparison.log_score_sums(), rel=1e-5)


def test_newton_finds_the_minimum_of_a_convex_function(comparison: Comparison) -> None:
    beta = comparison.best_beta()
    value, slope, curvature = comparison.log_score_loss(beta)
    assert abs(slope) < 1e-9 and curvature > 0
    grid = np.linspace(0, 4, 401)
    values = np.array([comparison.log_score_loss(float(b))[0] for b in grid])
    assert values.min() >= value - 1e-12
    assert abs(grid[values.argmin()] - beta) <= 0.01
    assert np.diff(values, 2).min() >= -1e-12
    assert abs(beta - 1) > 0.05  # so the test can tell


def test_loss_is_the_divergence_up_to_a_constant(comparison: Comparison) -> None:
    rows = comparison.row_R, comparison.position_R
    p = comparison.teacher_BLV[rows][:, :7].double().softmax(-1)
    student = comparison.student_BLV[rows][:, :7].double()
    p = p.masked_fill(student == -torch.inf, 0)  # no coefficient gives the student what it deems impossible

    def divergence(beta: float) -> float:
        log_q = (beta * student).log_softmax(-1).masked_fill(student == -torch.inf, 0)
        return float((torch.special.xlogy(p, p) - p * log_q).sum(-1).mean())

    constants = [comparison.log_score_loss(beta)[0] - divergence(beta) for beta in (0.3, 1.0, 1.7)]
    assert constants == pytest.approx([constants[0]] * 3, abs=1e-9)
    for beta in (0.3, 1.0, 1.7):
        _, slope, curvature = comparison.log_score_loss(beta)
        h = 1e-4
        low, high = comparison.log_score_loss(beta - h), comparison.log_score_loss(beta + h)
        assert slope == pytest.approx((high[0] - low[0]) / (2 * h), abs=1e-7)
        assert curvature == pytest.approx((high[1] - low[1]) / (2 * h), abs=1e-6)


def test_closed_form_is_the_minimum_of_the_generalised_divergence(comparison: Comparison) -> None:
    rows = comparison.row_R, comparison.position_R
    teacher, student = (x[rows][:, :7].double().exp() for x in (comparison.teacher_BLV, comparison.student_BLV))

    def divergence(phi: float) -> float:
        return float(
            (torch.special.xlogy(teacher, teacher / (phi * student).clamp(min=1e-300)) - teacher + phi * student).sum()
        )

    above, below = comparison.log_score_sums()
    phi = math.exp(above - below)
    assert phi == pytest.approx(float(teacher.sum() / student.sum()), rel=1e-5)
    assert divergence(phi) < min(divergence(phi * 1.01), divergence(phi / 1.01))


def test_moves_are_compared_by_the_total_of_their_rates() -> None:
    """Under noise without a mask: a student whose scores are half the teacher's moves half as often."""
    teacher_BLV = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    state_BL = torch.tensor([[0, 4, 2], [1, 3, 3]])
    row_R, position_R = (state_BL >= 0).nonzero(as_tuple=True)
    reverse = TokenMoves(Uniform(5), LogLinear(), SOLVERS["euler"], "log_score")
    outputs = teacher_BLV, teacher_BLV - math.log(2)
    moves = MovesComparison(*outputs, row_R, position_R, state_BL[row_R, position_R], reverse, 0.5)
    teacher, student = moves.log_score_sums()
    assert moves.count == 6
    assert teacher - student == pytest.approx(math.log(2), rel=1e-12)
