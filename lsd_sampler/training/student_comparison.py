"""Comparison of teacher's and student's predictions in one step, from which coefficients are learned."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..sampling.draws import log_mass
from ..sampling.logit_rows import ModelOutput, row_chunks
from ..sampling.moves import TokenMoves
from ..support.workers import Workers


MAX_BETA = 100.0


@dataclass
class Comparison:
    """Teacher's and student's predictions in one step, at the positions that are masked in both.

    Newton's method reads the student's rows several times, so a float32 copy of them is kept until the step ends.
    """

    teacher_BLV: ModelOutput
    student_BLV: ModelOutput
    row_R: torch.Tensor
    position_R: torch.Tensor
    excluded: int | None
    normalised: bool = False
    workers: Workers = Workers()
    _cached: list[tuple[torch.Tensor, ...]] | None = None

    @property
    def count(self) -> int:
        """Number of positions that all processes compare."""
        return int(self.workers.sum(torch.tensor(len(self.row_R))))

    def log_score_sums(self) -> tuple[float, float]:
        """Log of the sum of the scores over positions and tokens, teacher's and student's.

        The minimiser of the generalised KL `sum s* log(s* / Phi s) - s* + Phi s` (eq. 6) is the ratio of the two sums.
        All scores of a normalised denoiser have the same sum at one time, whatever the constant in its logits: the
        coefficient is then 1.
        """
        if self.normalised:
            return 0.0, 0.0
        teacher, student = (
            self.workers.logsumexp(
                float(log_mass(x, self.row_R, self.position_R, excluded=self.excluded).logsumexp(0))
            )
            for x in (self.teacher_BLV, self.student_BLV)
        )
        return teacher, student

    def _chunks(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """Some rows at a time: the student's log-scores below their maximum, where they are -inf, the teacher's mass
        elsewhere, and its sum of the student's log-scores there.
        """
        if self._cached is None:
            self._cached = list(self._read_chunks())
        yield from self._cached

    def _read_chunks(self) -> Iterator[tuple[torch.Tensor, ...]]:
        size = max(1, 2**20 // self.student_BLV.shape[-1])
        chunks = (
            row_chunks(x, self.row_R, self.position_R, self.excluded, size)
            for x in (self.teacher_BLV, self.student_BLV)
        )
        for teacher_RV, x_RV in zip(*chunks, strict=True):
            p_RV = teacher_RV.softmax(-1)
            # no coefficient gives the student a token that it deems impossible
            impossible_RV = x_RV == -torch.inf
            x_RV = (x_RV - x_RV.amax(-1, keepdim=True)).masked_fill_(impossible_RV, 0)
            p_RV = p_RV.masked_fill_(impossible_RV, 0)
            mass_R = p_RV.sum(-1, dtype=torch.float64)
            yield x_RV, impossible_RV, mass_R, p_RV.mul_(x_RV).sum(-1, dtype=torch.float64)

    def log_score_loss(self, beta: float) -> tuple[float, float, float]:
        """Mean over positions of KL(softmax(log s*) || softmax(beta log s)), up to a constant.

        Tokens that the student deems impossible are left out: no coefficient can give them to it.

        Returns:
            value, first and second derivative in beta.
        """
        sums = torch.zeros(3, dtype=torch.float64)
        for x_RV, impossible_RV, mass_R, teacher_R in self._chunks():
            e_RV = (beta * x_RV).exp_().masked_fill_(impossible_RV, 0)
            total_R = e_RV.sum(-1, dtype=torch.float64)
            ex_RV = e_RV.mul_(x_RV)
            mean_R = ex_RV.sum(-1, dtype=torch.float64) / total_R
            square_R = ex_RV.mul_(x_RV).sum(-1, dtype=torch.float64) / total_R
            value = (mass_R * total_R.log() - beta * teacher_R).sum()
            slope, curvature = (mass_R * mean_R - teacher_R).sum(), (mass_R * (square_R - mean_R.square())).sum()
            sums += torch.stack([value, slope, curvature]).cpu()
        value, slope, curvature = (self.workers.sum(sums) / max(1, self.count)).tolist()
        return value, slope, curvature

    def best_beta(self) -> float:
        """The minimiser of `log_score_loss`, which is convex: Newton, kept inside a bracket by bisection."""
        low, high, beta = 0.0, MAX_BETA, 1.0
        tolerance = 1e-10 if self.student_BLV.dtype == torch.float64 else 1e-6
        for _ in range(60):
            _, slope, curvature = self.log_score_loss(beta)
            if abs(slope) <= tolerance:  # at the first step both canvases are the same
                return beta
            if slope > 0:
                high = beta
            else:
                low = beta
            step = beta - slope / curvature if curvature > 0 else math.nan
            new = step if low < step < high else (low + high) / 2
            if abs(new - beta) <= tolerance * max(1.0, beta):
                return new
            beta = new
        return beta


@dataclass
class MovesComparison:
    """Teacher's and student's predictions in one step under noise without a mask, where both are in the same state.

    A score is a ratio to the present state, so it can be compared nowhere else.
    """

    teacher_BLV: ModelOutput
    student_BLV: ModelOutput
    row_R: torch.Tensor
    position_R: torch.Tensor
    state_R: torch.Tensor
    reverse: TokenMoves
    t: float
    workers: Workers = Workers()

    @property
    def count(self) -> int:
        """Number of positions that all processes compare, as in `Comparison`."""
        return int(self.workers.sum(torch.tensor(len(self.row_R))))

    def log_score_sums(self) -> tuple[float, float]:
        """Log of the total rate at which tokens move back, teacher's and student's; as in `Comparison`."""
        sums = [0.0, 0.0]
        for i, output_BLV in enumerate((self.teacher_BLV, self.student_BLV)):
            done = 0
            for output_RV in row_chunks(output_BLV, self.row_R, self.position_R, None):
                x_R, done = self.state_R[done : done + len(output_RV)], done + len(output_RV)
                sums[i] += float(self.reverse.total_rates(output_RV, x_R, self.t).sum())
        teacher, student = (self.workers.logsumexp(math.log(x) if x > 0 else -math.inf) for x in sums)
        return teacher, student
