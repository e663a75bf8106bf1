"""The objective `answers`: the share of right answers to tasks, by a checker.

The objective `likelihood` judges samples of the law, by what forced sequences cost. This one judges answers to a
puzzle, a question or a programming task, by how many are right. It searches the same numbers, and the temperature as
well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any

import torch

from ..denoisers.oracle import Oracle
from ..sampling.canvas import StepInput
from ..sampling.dependence import Dependence
from ..sampling.pipeline_runs import PipelineRuns
from ..support.tasks import VALID, Checker, check_task, make_checker, share_right
from .forced_figure import Watch, sampler_of
from .held_out import with_other_noise
from .position_candidates import Candidate, Measured
from .recording import SampleRecorder
from .task import Task


FEWEST_ANSWERS = 96
"""Tasks that a candidate is measured on, at least, if there are as many: right or wrong says less than a cost."""


@dataclass(frozen=True)
class Answers:
    """Tasks, and what says whether an answer is right.

    Args:
        items (sequence of `dict`): the tasks; sequence i of the pipeline answers item `i % len`.
        checker ([`~lsd_sampler.support.tasks.Checker`]): `checker(output, item) -> bool`.
        tokenizer (*optional*): decodes sequences; without it the checker gets token ids.
    """

    items: Sequence[dict[str, Any]]
    checker: Checker
    tokenizer: Any = None

    def __post_init__(self) -> None:
        if not self.items:
            raise ValueError("`tasks` must hold at least one item.")
        for item in self.items:
            check_task(item)

    def identity(self) -> dict[str, Any]:
        """What tells these tasks from others."""
        checker = self.checker if isinstance(self.checker, FunctionType) else type(self.checker)
        return {"items": list(self.items), "checker": checker}

    def right(self, sequences_BL: torch.Tensor, indices: Sequence[int]) -> torch.Tensor:
        """Which answers are right, `(B,)`, bool."""
        items = [self.items[i % len(self.items)] for i in indices]
        return share_right(sequences_BL, items, self.checker, self.tokenizer)


def checked_answers(
    pipeline: Any, config: Any, answers: Answers | None, call_kwargs: Mapping[str, Any]
) -> Answers | None:
    """The tasks of a run; for an exact oracle those of its canvases, where valid sequences are right.

    Raises:
        ValueError: if tasks are given and not wanted, or wanted and not given.
    """
    wanted = config.objective == "answers"
    if answers is not None and not wanted:
        raise ValueError("`answers` are for `objective` 'answers': ask for that, or leave them out.")
    if answers is not None or not wanted:
        return answers
    denoiser = getattr(pipeline, "denoiser", None)
    if not isinstance(denoiser, Oracle):
        raise ValueError("`objective` 'answers' needs tasks with a checker: `answers`, or `lsd-train --tasks`.")
    length = call_kwargs.get("length") or denoiser.length
    canvases = torch.as_tensor(call_kwargs.get("input_ids", [denoiser.hole_id] * length))
    items = [{"canvas": row} for row in torch.atleast_2d(canvases).tolist()]
    return Answers(items, make_checker(VALID, oracle=denoiser))


class AnswerRecorder(SampleRecorder):
    """A sampler whose sequences are kept. It also sees how many tokens are known in each call, and how many calls each
    sequence takes.
    """

    def watch(self, M: int) -> None:
        """Begins to count, for runs of M steps."""
        self.seen = Watch(M)

    def begin(self, num_inference_steps: int) -> None:
        super().begin(num_inference_steps)
        self.calls_B: torch.Tensor | float = 0.0

    def record(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
        canvas_BL, probability_BL = super().record(x)
        self.calls_B = self.calls_B + x.masked_BL.any(1).double().cpu()
        self.seen.add(x, x.masked_BL & (canvas_BL != x.mask_token_id), x.masked_BL)
        return canvas_BL, probability_BL


class AnswerFigure:
    """The share of wrong answers of a candidate, and the price of its calls.

    Every candidate meets the same tasks under the same noise.

    A call counts as `call_price` wrong answers. A sequence makes no more calls once it is complete.

    Args:
        task ([`Task`]): the task; its base scheduler has the order that is learned for.
        answers ([`Answers`]): what is right.
        dependence ([`Dependence`], *optional*): between positions.
    """

    def __init__(self, task: Task, answers: Answers, dependence: Dependence | None):
        self.task, self.answers, self.dependence = task, answers, dependence
        self.runs: PipelineRuns = with_other_noise(task.runs)
        middle = task.sequences.start + len(task.sequences) // 2
        self.parts = {"fit": range(task.sequences.start, middle), "check": range(middle, task.sequences.stop)}
        self.num_fit, self.num_check = (len(self.parts[part]) * task.workers.size for part in ("fit", "check"))
        self.num_first = min(FEWEST_ANSWERS, self.num_fit)

    def __call__(self, candidate: Candidate, part: str, num: int | None = None) -> Measured:
        task, M = self.task, len(candidate.shares)
        recorder = AnswerRecorder.from_config(task.base.config)
        recorder.set_learned_sampler(sampler_of(candidate, task, self.dependence))
        recorder.watch(M)
        sequences = self.parts[part]
        if num is not None:
            sequences = sequences[: max(1, num // task.workers.size)]
        self.runs.network_calls, wrong, calls, size = task.runs.network_calls, [], [], task.config.batch_size
        for first in range(0, len(sequences), size):
            batch = sequences[first : first + size]
            self.runs.run(recorder, M, batch)
            wrong.append(1.0 - self.answers.right(recorder.sequences, batch).double())
            calls.append(torch.as_tensor(recorder.calls_B))
        task.runs.network_calls = self.runs.network_calls
        calls_S = torch.cat(calls)
        measured = recorder.seen.measured(torch.cat(wrong) + task.options.call_price * calls_S, task)
        return replace(measured, calls_S=task.workers.concatenate(calls_S))
