"""Teacher paths: integers only, made once, from which a student can be judged at any grid of times."""

from dataclasses import asdict, dataclass

import torch

from ..canvas import StepInput
from .recording import Recorder
from .task import Task


@dataclass
class TeacherPath:
    """One canvas of a teacher's run.

    Args:
        masked_BL (`torch.BoolTensor` of shape `(batch_size, seq_len)`): what was masked at the start.
        final_BL (`torch.LongTensor` of that shape): how it ended.
        step_BL (`torch.IntTensor` of that shape): index of the teacher's step that revealed each position (for good,
            if it masks again); -1 where nothing was masked.
    """

    masked_BL: torch.Tensor
    final_BL: torch.Tensor
    step_BL: torch.Tensor

    @property
    def nbytes(self) -> int:
        return self.masked_BL.nbytes + self.final_BL.nbytes + self.step_BL.nbytes

    def to(self, device: torch.device) -> "TeacherPath":
        return TeacherPath(self.masked_BL.to(device), self.final_BL.to(device), self.step_BL.to(device))

    def before(self, step: int, mask_token_id: int) -> torch.Tensor:
        """The canvas before one of the teacher's steps, `(B, L)`."""
        return self.final_BL.masked_fill(self.step_BL >= step, mask_token_id)


class PathRecorder(Recorder):
    """A plain sampler whose paths are kept."""

    def begin(self, num_inference_steps: int) -> None:
        super().begin(num_inference_steps)
        self.paths: list[TeacherPath] = []

    def _record(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
        if len(self.paths) == self.canvas:
            step_BL = torch.full(x.sample_BL.shape, -1, dtype=torch.int32, device=x.sample_BL.device)
            self.paths.append(TeacherPath(x.noise.masked_BL, x.sample_BL, step_BL))
        path = self.paths[-1]
        path.final_BL, probability_BL = super()._record(x)
        path.step_BL = path.step_BL.masked_fill(x.masked_BL & (path.final_BL != x.mask_token_id), x.k)
        return path.final_BL, probability_BL


def teacher_paths(task: Task) -> list[list[TeacherPath]]:
    """For each batch of sequences, the paths of the canvases of its run."""
    teacher = PathRecorder.from_config(task.base.config, solver=task.config.resolved_teacher_solver)
    batches = []
    for sequences in task.config.batches():
        name = f"teacher-{sequences.start}"
        stored = task.progress.load(name)
        if stored is None:
            task.runs.run(teacher, task.plan.num_steps, sequences)
            batches.append(teacher.paths)
            tensors = {f"{c}.{key}": t for c, path in enumerate(teacher.paths) for key, t in asdict(path).items()}
            task.progress.save(name, {**tensors, "network_calls": torch.tensor(task.runs.network_calls)})
        else:
            task.runs.network_calls = int(stored["network_calls"])
            keys = TeacherPath.__annotations__
            batches.append(
                [TeacherPath(*(stored[f"{c}.{key}"] for key in keys)) for c in range(task.plan.num_canvases)]
            )
    task.log(
        event="teacher",
        steps=task.plan.num_steps,
        sequences=task.config.num_sequences,
        canvases=task.plan.num_canvases,
        kept_bytes=sum(path.nbytes for paths in batches for path in paths),
        network_calls=task.runs.network_calls,
    )
    return batches
