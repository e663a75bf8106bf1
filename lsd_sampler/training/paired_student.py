"""A student that runs in one batch with its teacher: the first half of the batch replays the teacher's canvases."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..sampling.canvas import StepInput
from ..sampling.learned_numbers import LearnedSampler, LearnedSteps
from ..sampling.moves import TokenMoves
from ..support.workers import Workers
from .recording import Recorder, UnequalLengths
from .relaxation import RelaxedStart, relaxed_starts
from .student_comparison import Comparison, MovesComparison
from .task import Task


Learn = Callable[[int, Any], tuple[float, float]]
"""From the index of a step and a comparison to the coefficients (Phi, beta) of that step."""


class PairedStudent(Recorder):
    """Runs on a batch of `2 B` rows: B teacher canvases that are replayed, B student canvases that are sampled.

    At each step `learn(k, comparison)` is asked for the coefficient of that step.
    """

    workers = Workers()

    def follow(
        self,
        start: LearnedSteps,
        canvases: list[list[torch.Tensor]],
        learn: Learn,
        relaxed: list[RelaxedStart] | None = None,
    ) -> None:
        """Sets the teacher's canvases, `(B, L)` each (for each canvas of a run, before each step and at the end), the
        function that decides `(Phi_k, beta_k)`, and how the student's canvases are relaxed.
        """
        self.set_learned_sampler(LearnedSampler({start.score_coefficients.numel(): start}))
        self.canvases, self.learn, self.relaxed = canvases, learn, relaxed

    def record(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
        B, states = len(x.sample_BL) // 2, self._of_canvas(self.canvases)
        teacher_BL, student_BL = states[x.k].to(x.sample_BL.device), x.sample_BL[B:]
        if teacher_BL.shape != student_BL.shape or (x.k == 0 and not teacher_BL.equal(x.sample_BL[:B])):
            raise UnequalLengths(
                "The teacher's canvases are not those that this batch begins with (a pipeline pads prompts to the"
                " longest of a batch): use prompts of equal length in tokens, or a `batch_size` of all sequences, and"
                " with `optimizer` 'adam' an `adam_batch_size` of all."
            )
        comparison = self._compare(x, teacher_BL, student_BL)
        self.steps.score_coefficients[x.k], self.steps.log_score_coefficients[x.k] = self.learn(x.k, comparison)
        self.use_steps(self.steps)
        # the teacher's rows are sampled too, although unused: draws are cheap compared with the network
        next_BL, probability_BL = super().record(x)
        following_BL, student_BL = states[x.k + 1].to(next_BL.device), next_BL[B:]
        if x.is_last:  # a canvas that follows must begin from the same context
            student_BL = following_BL
        elif x.k == 0 and self.relaxed is not None:
            student_BL = self.relaxed[self.canvas_index].fill(student_BL, x.logits_BLV.shape[-1], x.mask_token_id)
        return torch.cat([following_BL, student_BL]), probability_BL

    def _compare(
        self, x: StepInput, teacher_BL: torch.Tensor, student_BL: torch.Tensor
    ) -> Comparison | MovesComparison:
        outputs = x.logits_BLV[: len(teacher_BL)], x.logits_BLV[len(teacher_BL) :]
        if isinstance(self.rule, TokenMoves):
            row_R, position_R = (teacher_BL == student_BL).nonzero(as_tuple=True)
            state_R, t = teacher_BL[row_R, position_R], float(self.steps.timesteps[x.k])
            return MovesComparison(*outputs, row_R, position_R, state_R, self.rule, t, self.workers)
        both_BL = (teacher_BL == x.mask_token_id) & (student_BL == x.mask_token_id)
        row_R, position_R = both_BL.nonzero(as_tuple=True)
        normalised = self.config.prediction_type == "logits"
        return Comparison(*outputs, row_R, position_R, x.mask_token_id, normalised, self.workers)


def run_pair(
    task: Task,
    student: PairedStudent,
    start: LearnedSteps,
    paths: list[list[torch.Tensor]],
    sequences: Sequence[int],
    learn: Learn,
) -> None:
    """One run of these sequences by teacher and student."""
    rows = [i - task.sequences.start for i in sequences]
    taken = [[state[rows] for state in path] for path in paths]
    masked = [path[0] == student.config.mask_token_id for path in taken]
    relaxed = relaxed_starts([(m, path[-1]) for m, path in zip(masked, taken, strict=True)], sequences, task.recipe)
    student.follow(start, taken, learn, relaxed)
    task.runs.run(student, len(start.score_coefficients), [*sequences, *sequences])
