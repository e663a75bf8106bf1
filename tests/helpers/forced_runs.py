"""Parts of `forced_kl` by themselves: a task without a distillation around it."""

from typing import Any

from lsd_sampler import DistillConfig
from lsd_sampler.sampling.pipeline_runs import PipelineRuns
from lsd_sampler.training.distill import base_scheduler
from lsd_sampler.training.progress import Progress
from lsd_sampler.training.recording import teacher_plan
from lsd_sampler.training.task import Task


def task_of(pipe: Any, call: dict[str, Any] | None = None, **options: Any) -> Task:
    """The task that `distill` would give to `forced_kl` for this pipeline."""
    config = DistillConfig(**{"method": "forced_kl", "nfe": (2, 4), **options})
    runs, base = PipelineRuns(pipe, config.seed, call or {}), base_scheduler(pipe, config)
    recipe = config.resolve(teacher_plan(runs, base, config))
    return Task(runs, base, recipe, lambda **_: None, Progress())
