"""What a training method works with."""

from collections.abc import Callable
from dataclasses import dataclass

from ..scheduling_lsd import LSDScheduler
from .config import DistillConfig
from .progress import Progress
from .recording import PipelineRuns, TeacherPlan


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
    """

    runs: PipelineRuns
    base: LSDScheduler
    plan: TeacherPlan
    config: DistillConfig
    log: Callable[..., None]
    progress: Progress
