"""The teacher's canvases at the times of a student, made from the teacher's paths."""

from collections.abc import Sequence

import torch

from ..sampling.solvers import SOLVERS
from .paths import TeacherPath, teacher_paths
from .recording import RecordedCanvas, TeacherRecorder, UnequalLengths, check_num_canvases
from .task import Task


class Canvases:
    """The teacher's canvases, of all sequences of this process, at a student's times.

    Args:
        paths (`list` of [`TeacherPath`] or [`RecordedCanvas`]): one for each canvas of a run.
        num_steps (`int`): the teacher's.
        mask_token_id (`int`): the mask.
    """

    def __init__(self, paths: Sequence[TeacherPath | RecordedCanvas], num_steps: int, mask_token_id: int):
        self.paths, self.num_steps, self.mask_token_id = paths, num_steps, mask_token_id

    def at(self, M: int) -> list[list[torch.Tensor]]:
        """Each canvas before each of M steps and at the end, as `PairedStudent.follow` takes them."""
        return [
            [*(self._before(path, k) for k in student_times(M, self.num_steps)), path.final_BL] for path in self.paths
        ]

    def _before(self, path: TeacherPath | RecordedCanvas, step: int) -> torch.Tensor:
        if isinstance(path, TeacherPath):
            return path.before(step, self.mask_token_id)
        return path.states.get(step, path.final_BL)


def student_times(M: int, num_steps: int) -> list[int]:
    """The teacher's steps at which a student of M steps is compared with it."""
    return [round(k * num_steps / M) for k in range(M)]


def teacher_canvases(task: Task) -> Canvases:
    """The canvases of the teacher. Its paths determine them if a token stays as it was revealed."""
    plain = SOLVERS[task.recipe.teacher_solver].distillable and task.base.config.corruption == "absorbing"
    paths = _joined(teacher_paths(task)) if plain else _recorded_canvases(task)
    return Canvases(paths, task.plan.num_steps, task.plan.mask_token_id)


def _joined(batches: list[list[TeacherPath]]) -> list[TeacherPath]:
    """The paths of all batches as one for each canvas.

    Raises:
        UnequalLengths: if canvases differ in length from batch to batch.
    """
    joined = []
    for paths in zip(*batches, strict=True):
        if len({path.final_BL.shape[1] for path in paths}) > 1:
            raise UnequalLengths(
                "Canvases differ in length from batch to batch (a pipeline pads prompts to the longest): use prompts"
                " of equal length, or a `batch_size` of all sequences."
            )
        joined.append(
            TeacherPath(*(torch.cat(parts) for parts in zip(*(vars(p).values() for p in paths), strict=True)))
        )
    return joined


def _recorded_canvases(task: Task) -> list[RecordedCanvas]:
    """The canvases of a teacher that changes what it revealed: one run of all sequences, kept at all times."""
    kept = {k for M in task.config.nfe for k in student_times(M, task.plan.num_steps)}
    stored = task.progress.load("canvases", own=True)
    if stored is None:
        teacher = TeacherRecorder.from_config(task.base.config, solver=task.recipe.teacher_solver)
        teacher.keep = frozenset(kept)
        task.runs.run(teacher, task.plan.num_steps, task.sequences)
        check_num_canvases(len(teacher.canvases), task.plan.num_canvases)
        stored = {"network_calls": torch.tensor(task.runs.network_calls)}
        for c, canvas in enumerate(teacher.canvases):
            stored |= {f"{c}.masked": canvas.masked_BL.cpu(), f"{c}.final": canvas.final_BL.cpu()}
            stored |= {f"{c}.{k}": state.cpu() for k, state in canvas.states.items()}
        task.progress.save("canvases", stored, own=True)
    task.runs.network_calls = int(stored["network_calls"])
    canvases = [
        RecordedCanvas(
            stored[f"{c}.masked"], stored[f"{c}.final"], {k: stored[f"{c}.{k}"] for k in kept if f"{c}.{k}" in stored}
        )
        for c in range(task.plan.num_canvases)
    ]
    task.log(
        event="teacher",
        source="teacher",
        steps=task.plan.num_steps,
        sequences=task.num_sequences,
        canvases=len(canvases),
        kept_bytes=sum(canvas.nbytes for canvas in canvases),
        network_calls=task.runs.network_calls,
    )
    return canvases
