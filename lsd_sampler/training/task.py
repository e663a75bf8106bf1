"""A distillation's work, as a training method sees it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ..sampling.pipeline_runs import PipelineRuns
from ..scheduling_lsd import LSDScheduler
from ..support.workers import Workers
from .path_cache import PathCache
from .progress import Progress
from .recipe import Recipe
from .shared_options import SharedOptions
from .teacher_plan import TeacherPlan


if TYPE_CHECKING:
    from .answers import Answers
    from .data_canvases import DataCanvases


@dataclass(frozen=True)
class Task:
    """One distillation.

    Args:
        runs ([`PipelineRuns`]): runs the pipeline, and counts its network calls.
        base ([`LSDScheduler`]): the plain solver that teacher and student start from.
        recipe ([`Recipe`]): what the run does.
        log: called with the keyword arguments of each thing measured.
        progress ([`Progress`]): what is finished, on disk.
        cache ([`PathCache`], *optional*): teacher paths of earlier runs.
        data (`torch.LongTensor` of shape `(num_sequences, seq_len)`, *optional*): real sequences.
        workers ([`Workers`]): the processes that share the work.
        first (`int`): index of the first sequence; the seed of each is its own.
        canvases ([`DataCanvases`], *optional*): what the pipeline gives of the real sequences; None: nothing.
        answers ([`Answers`], *optional*): tasks, and which answers to them are right.
    """

    runs: PipelineRuns
    base: LSDScheduler
    recipe: Recipe
    log: Callable[..., None]
    progress: Progress
    cache: PathCache | None = None
    data: torch.Tensor | None = None
    workers: Workers = field(default_factory=Workers)
    first: int = 0
    canvases: "DataCanvases | None" = None
    answers: "Answers | None" = None

    @property
    def config(self) -> SharedOptions:
        """The options that all methods share."""
        return self.recipe.config

    @property
    def options(self) -> Any:
        """The method's own options."""
        return self.recipe.options

    @property
    def plan(self) -> TeacherPlan:
        """What a call of the pipeline asks of a sampler."""
        return self.recipe.plan

    @property
    def num_sequences(self) -> int:
        """Number of sequences to learn from, over all processes."""
        return self.recipe.num_sequences

    @property
    def sequences(self) -> range:
        """Indices of the sequences of this process."""
        share = self.workers.share(self.num_sequences)
        return range(self.first + share.start, self.first + share.stop)

    def batches(self) -> list[range]:
        """The sequences of this process, `batch_size` at a time."""
        share, size = self.sequences, self.config.batch_size
        return [range(first, min(first + size, share.stop)) for first in range(share.start, share.stop, size)]
