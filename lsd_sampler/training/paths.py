"""Teacher paths: integers only, made once, from which a student can be judged at any grid of times."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from tqdm.auto import tqdm

from ..sampling.canvas import StepInput
from ..scheduling_lsd import LSDScheduler
from .recording import Recorder, check_num_canvases
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

    def record(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
        if len(self.paths) == self.canvas_index:
            step_BL = torch.full(x.sample_BL.shape, -1, dtype=torch.int32, device=x.sample_BL.device)
            self.paths.append(TeacherPath(x.canvas.masked_BL, x.sample_BL, step_BL))
        path = self.paths[-1]
        path.final_BL, probability_BL = super().record(x)
        path.step_BL = path.step_BL.masked_fill(x.masked_BL & (path.final_BL != x.mask_token_id), x.k)
        return path.final_BL, probability_BL


def teacher_paths(task: Task) -> list[list[TeacherPath]]:
    """For each batch of sequences, the paths of the canvases of the teacher's run."""
    return sampled_paths(task, "teacher", task.recipe.teacher_solver, task.plan.num_steps)


def bootstrapped_paths(task: Task) -> list[list[TeacherPath]]:
    """Paths of the base solver with few steps. They are always in low-discrepancy order, where it errs least, because
    only how a sequence ends is used.
    """
    steps = task.recipe.bootstrap_steps
    return sampled_paths(task, "bootstrap", task.config.solver, steps, order="halton")


def data_paths(task: Task) -> list[list[TeacherPath]]:
    """Paths to real sequences: each one, when noised, is a point on an exact path in any order."""
    assert task.data is not None
    canvases = task.plan.num_canvases
    task.log(event="teacher", source="data", sequences=task.num_sequences, canvases=canvases, kept_bytes=0)
    if task.canvases is not None:
        return [task.canvases.paths(task.data, sequences) for sequences in task.batches()]
    batches = []
    for sequences in task.batches():
        final_BL = task.data[sequences.start : sequences.stop]
        path = TeacherPath(torch.ones_like(final_BL, dtype=torch.bool), final_BL, torch.zeros_like(final_BL))
        batches.append([path])
    return batches


SOURCES = {"teacher": teacher_paths, "bootstrap": bootstrapped_paths, "data": data_paths}


def source_paths(task: Task) -> list[list[TeacherPath]]:
    """For each batch, paths to sequences from the source that the recipe names."""
    return SOURCES[task.recipe.source](task)


def of_forward_process(task: Task) -> Task:
    """The same task, with sequences that are made in the order of the forward process, at random. Those made in an
    order that looks at the logits would fit it by construction.
    """
    return replace(task, base=LSDScheduler.from_config(task.base.config, order="random"))


def made_once(
    task: Task, name: str, identity: dict[str, Any], make: Callable[[], dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """What a task has made already, or another run with the same teacher; else it is made now, and kept for both. The
    network calls are counted either way, because they are its cost.

    Args:
        task ([`Task`]): the task.
        name (`str`): its name in the task's progress.
        identity (`dict`): what it depends on besides the pipeline and its call.
        make: makes the tensors, and counts the network calls in `task.runs`.
    """
    stored = task.progress.load(name, own=True) or (task.cache and task.cache.load(identity))
    if stored is not None:
        task.runs.network_calls += int(stored["network_calls"])
        return stored
    before = task.runs.network_calls
    made = make()
    made["network_calls"] = torch.tensor(task.runs.network_calls - before)
    if task.cache is not None:
        task.cache.save(identity, made)
    task.progress.save(name, made, own=True)
    return made


def sampled_paths(task: Task, source: str, solver: str, num_steps: int, **options: Any) -> list[list[TeacherPath]]:
    """For each batch of sequences, the paths of a plain sampler, read from disk if they were made before.

    The network calls are counted either way, because they are the cost of the paths.

    Args:
        task ([`Task`]): the task whose sequences these are.
        source (`str`): the name of the source in the log.
        solver, options: the sampler's; other options are the base solver's.
        num_steps (`int`): its steps.

    Raises:
        UnequalLengths: if batches differ in their number of canvases. Either all processes raise it, or none does.
    """
    sampler = PathRecorder.from_config(task.base.config, solver=solver, **options)
    config = {name: value for name, value in dict(sampler.config).items() if name[0] != "_"}
    batches, num_canvases = [], task.plan.num_canvases
    for sequences in tqdm(task.batches(), desc="paths", unit="batch"):
        identity = {
            "scheduler": config, "steps": num_steps, "seed": task.config.seed,
            "sequences": [sequences.start, sequences.stop],
        }  # fmt: skip

        def make(sequences: range = sequences) -> dict[str, torch.Tensor]:
            task.runs.run(sampler, num_steps, sequences)
            # on the CPU, like those from disk, because they are joined there
            return {f"{c}.{key}": t.cpu() for c, path in enumerate(sampler.paths) for key, t in vars(path).items()}

        stored = made_once(task, f"{solver}-{num_steps}-{sequences.start}", identity, make)
        num_canvases = sum(key.endswith(".final_BL") for key in stored)
        if num_canvases != task.plan.num_canvases:
            break
        keys = TeacherPath.__annotations__
        batches.append([TeacherPath(*(stored[f"{c}.{key}"] for key in keys)) for c in range(num_canvases)])
    # no process goes on alone
    for each in task.workers.concatenate(torch.tensor([num_canvases])).tolist():
        check_num_canvases(each, task.plan.num_canvases)
    task.log(
        event="teacher",
        source=source,
        steps=num_steps,
        sequences=task.num_sequences,
        canvases=task.plan.num_canvases,
        kept_bytes=sum(path.nbytes for paths in batches for path in paths),
        network_calls=task.runs.network_calls,
    )
    return batches
