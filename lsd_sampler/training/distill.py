"""`distill`: from a pipeline and a config to a learned scheduler."""

import time
from collections.abc import Callable
from typing import Any

from diffusers import DiffusionPipeline

from ..scheduling_lsd import LSDScheduler
from .config import METHODS, DistillConfig
from .recording import PipelineRuns


def distill(
    pipeline: DiffusionPipeline,
    config: DistillConfig | None = None,
    *,
    log: Callable[[dict[str, Any]], None] | None = None,
    **call_kwargs: Any,
) -> LSDScheduler:
    """Learns a few-step sampler for the model in a pipeline.

    The network is never called from here: schedulers that record what passes through `step` are put into the pipeline,
    and it is run. Its own scheduler is put back at the end.

    Args:
        pipeline (`DiffusionPipeline`): of a masked diffusion model; its scheduler's config names the mask and the
            noise.
        config ([`DistillConfig`], *optional*): what to learn, and how.
        log (*optional*): called with a dict for each thing measured (network calls, schedules, coefficients, seconds).
        call_kwargs: passed to every call of the pipeline, for example a prompt.

    Returns:
        [`LSDScheduler`]: the learned sampler.

    Raises:
        ValueError: for options that do not fit the pipeline; the message names the option.
    """
    config = config or DistillConfig()
    base = LSDScheduler.from_config(
        pipeline.scheduler.config, solver=config.solver, order=config.order, count=config.count, schedule="uniform"
    )
    started = time.perf_counter()

    def write(**values: Any) -> None:
        if log is not None:
            log({**values, "seconds": round(time.perf_counter() - started, 3)})

    runs = PipelineRuns(pipeline, config.seed, call_kwargs)
    learned = METHODS[config.method](runs, base, config, write)
    write(event="done", network_calls=runs.network_calls)
    base.set_learned_sampler(learned)
    return base
