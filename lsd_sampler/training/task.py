"""What a training method works with."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ..sampling.pipeline_runs import PipelineRuns
from ..scheduling_lsd import LSDScheduler
from ..support.workers import Workers
from .config import DistillConfig
from .path_cache import PathCache
from .progress import Progress
from .recording import TeacherPlan


def num_sequences(config: DistillConfig, workers: Workers) -> int:
    """Sequences to learn from; a number that nobody asked for is made such that processes can share it."""
    number = config.resolved_num_sequences
    return number if config.num_sequences else workers.multiple(number)


@dataclass(frozen=True)
class Task:
    """One distillation.

    Args:
        runs ([`PipelineRuns`]): runs the pipeline, and counts its network calls.
        base ([`LSDScheduler`]): the plain solver that teacher and student start from.
        plan ([`TeacherPlan`]): what a call of the pipeline asks of a sampler.
        config ([`DistillConfig`]): the options.
        log: called with the keyword arguments of each thing measured.
        progress ([`Progress`]): what is finished, on disk.
        cache ([`PathCache`], *optional*): teacher paths of earlier runs.
        data (`torch.LongTensor` of shape `(num_sequences, seq_len)`, *optional*): real sequences.
        workers ([`Workers`]): the processes that share the work.
        first (`int`): index of the first sequence; the seed of each is its own.
    """

    runs: PipelineRuns
    base: LSDScheduler
    plan: TeacherPlan
    config: DistillConfig
    log: Callable[..., None]
    progress: Progress
    cache: PathCache | None = None
    data: torch.Tensor | None = None
    workers: Workers = field(default_factory=Workers)
    first: int = 0

    @property
    def num_sequences(self) -> int:
        """Sequences to learn from, of all processes."""
        return num_sequences(self.config, self.workers)

    @property
    def sequences(self) -> range:
        """Those of this process."""
        share = self.workers.share(self.num_sequences)
        return range(self.first + share.start, self.first + share.stop)

    def batches(self) -> list[range]:
        """The same, `batch_size` at a time."""
        share, size = self.sequences, self.config.batch_size
        return [range(first, min(first + size, share.stop)) for first in range(share.start, share.stop, size)]
