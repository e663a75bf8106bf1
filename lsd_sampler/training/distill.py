"""`distill`: from a pipeline and a config to a learned scheduler."""

import inspect
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from ..denoisers.frames import held_frame, without_frame
from ..denoisers.vocabulary import token_names
from ..sampling.learned_numbers import LearnedSampler
from ..sampling.left_out import check_predicted
from ..sampling.pipeline_runs import PipelineRuns
from ..scheduling_lsd import LSDScheduler
from ..support.workers import Workers
from . import coefficients
from .answers import Answers, checked_answers
from .config import DistillConfig
from .data import token_ids
from .data_canvases import DataCanvases, look_at_canvases
from .method import METHODS, ChosenSampler, method_of
from .path_cache import PathCache, fingerprint
from .progress import Progress
from .recipe import Recipe
from .recording import teacher_plan
from .shared_options import NUM_SEQUENCES
from .task import Task
from .teacher_plan import TeacherPlan
from .variety import log_variety


logger = logging.getLogger(__name__)

DATA_CANVASES = "data-canvases"


def distill(
    pipeline: DiffusionPipeline,
    config: DistillConfig | None = None,
    *,
    log: Callable[[dict[str, Any]], None] | None = None,
    checkpoint_dir: str | os.PathLike | None = None,
    resume: bool = False,
    cache_dir: str | os.PathLike | None = None,
    data: torch.Tensor | None = None,
    answers: Answers | None = None,
    **call_kwargs: Any,
) -> LSDScheduler:
    """Learns a few-step sampler for the model in a pipeline.

    The network is never called from here: schedulers that record what passes through `step` are put into the pipeline,
    and it is run. Its own scheduler is put back at the end. This takes

        C (1 + batches N + ...)         calls, as the method's `network_calls` says,
        C batches                       to see what is given of real sequences, unless that is nothing, and
        C (18 batches * sum of the NFEs up to 32)           at most for two-sided coefficients (reference apart),

    for C canvases in a run (1, or the blocks of LLaDA2Pipeline) and N teacher steps. On canvases of length L, `13 C L`
    bytes for each sequence are kept between steps (log: `kept_bytes`), besides what the method's `memory` says.
    Nothing of the size of the logits is ever kept.

    In a process group of `torch.distributed` (`accelerate launch`) each process measures a share of the sequences, and
    all return the same.

    Args:
        pipeline (`DiffusionPipeline`): of a masked diffusion model; its scheduler's config may name mask and noise.
        config ([`DistillConfig`], *optional*): what to learn, and how.
        log (*optional*): called with a dict for each thing measured (network calls, schedules, coefficients, ...).
        checkpoint_dir (*optional*): folder in which finished parts are kept, as `progress-*.safetensors`; remove them
            when the sampler is saved.
        resume (`bool`, defaults to `False`): whether to go on with what `checkpoint_dir` holds. The result is the
            same, bit for bit, as that of an uninterrupted run.
        cache_dir (*optional*): folder of teacher paths (integers), which later runs with the same teacher find there,
            whatever their method and numbers of calls. Their network calls are counted as if they were made anew.
        data (`torch.LongTensor` of shape `(num, seq_len)`, *optional*): real sequences, for methods that take them in
            place of a teacher's; token ids of any integer type. Row i is the completed canvas of sequence i (of a
            pipeline with several, one after another): where the pipeline gives a token (a prompt, `input_ids`), it
            holds the same. The data may include tokens that the denoiser puts around a canvas (`[CLS]`, `[SEP]`).
            Others that the model never predicts (`[UNK]`) are left out of every sum, with a warning.
        answers ([`Answers`], *optional*): tasks with a checker, for `objective` `"answers"`. The pipeline must be
            called for them (`prompt`, `input_ids`, one entry for each). For an exact oracle what is valid is right.
        call_kwargs: passed to every call of the pipeline, for example a prompt. Sequence i gets entry `i % len` of a
            list of prompts, of class labels or of canvases (`input_ids`). Tokens are drawn at temperature 1.

    Returns:
        [`LSDScheduler`]: the learned sampler.

    Raises:
        ValueError: for options that do not fit the pipeline; the message names the option.
    """
    config = config or DistillConfig()
    frame = getattr(getattr(pipeline, "denoiser", None), "frame_token_ids", None)
    data, before = (None, 0) if data is None else _without_frame(token_ids(data), frame)
    answers = checked_answers(pipeline, config, answers, call_kwargs)
    base = base_scheduler(pipeline, config)
    config.check_data_given(data is not None)
    METHODS[config.method].check_mask(base.config.corruption == "absorbing")
    runs, workers = PipelineRuns(pipeline, config.seed, call_kwargs), Workers.here()
    scheduler = dict(base.config)
    scheduler.pop("_use_default_values", None)  # its order differs between processes
    identity = {"config": config.to_dict(), "scheduler": scheduler, "call": call_kwargs}
    if data is not None:
        identity["data"] = data
    if answers is not None:
        identity["answers"] = answers.identity()
    if config.num_sequences:
        workers.share(config.num_sequences)  # refuses what cannot be shared
    if checkpoint_dir is not None:  # progress made with other weights must not be resumed
        identity["pipeline"] = fingerprint(pipeline)
    progress = Progress(_folder(checkpoint_dir), identity, resume, workers)

    def write(**values: Any) -> None:
        if log is not None:
            log({**values, "seconds": round(progress.seconds, 3)})

    recipe, canvases = _recipe(runs, base, config, progress, data, before)
    cache = None
    if (cache_folder := _folder(cache_dir)) is not None:
        cache = PathCache(cache_folder, pipeline, call_kwargs, identity.get("pipeline"))
    task = Task(runs, base, recipe, write, progress, cache, data, workers, canvases=canvases, answers=answers)
    learned, winner = METHODS[config.method].learn(task), config
    if isinstance(learned, ChosenSampler):
        winner, own = learned.recipe.config, method_of(learned.recipe).scheduler_options(learned.recipe.order)
        base = LSDScheduler.from_config(base.config, **own)
        learned = LearnedSampler(learned.steps, learned.step_error, learned.dependence)
    if coefficients.wanted(config, METHODS[winner.method]):
        learned = coefficients.with_coefficients(replace(task, base=base), learned)
    if METHODS[winner.method].reports_variety:
        log_variety(replace(task, base=base), learned)
    plan = recipe.plan
    peak = {"peak_device_bytes": torch.cuda.max_memory_allocated()} if torch.cuda.is_available() else {}
    write(event="done", network_calls=runs.network_calls, is_image=plan.is_image, **peak)
    if plan.has_mask:
        base.register_to_config(mask_token_id=plan.mask_token_id)
    base.set_learned_sampler(learned)
    return base


def base_scheduler(pipeline: DiffusionPipeline, config: DistillConfig) -> LSDScheduler:
    """The plain base solver that teacher and student start from."""
    known = inspect.signature(LSDScheduler.__init__).parameters  # other schedulers have entries of their own
    kept = {name: value for name, value in pipeline.scheduler.config.items() if name in known}
    options: dict[str, Any] = {
        "solver": config.solver, "solver_options": None, "count": config.count, "schedule": "uniform",
        "draws": "exact",  # other draws cannot be replayed; a sampler may be loaded with them
        "minimal_gap": 0,  # so may this be
    }  # fmt: skip
    own = METHODS[config.method].scheduler_options(config.base_order)
    return LSDScheduler(**kept | options | own)


def _folder(path: str | os.PathLike | None) -> Path | None:
    return None if path is None else Path(os.path.expanduser(path))


def _without_frame(data: torch.Tensor, frame: Any) -> tuple[torch.Tensor, int]:
    """The data without the tokens that the denoiser puts around a canvas, and how many were before it."""
    return without_frame(data, frame), held_frame(data, frame)[0]


def tell_what_is_left_out(
    pipeline: Any, data: torch.Tensor, plan: TeacherPlan, canvases: DataCanvases | None = None
) -> None:
    """One warning about tokens of the data, where these are masked, that the model never predicts.

    Raises:
        ValueError: if they are too many.
    """
    data = data if canvases is None else canvases.asked_for(data)
    said = check_predicted("data", data, plan.never_predicted, token_names(getattr(pipeline, "tokenizer", None)))
    if said and Workers.here().is_main:
        logger.warning(said)


def _recipe(
    runs: PipelineRuns,
    base: LSDScheduler,
    config: DistillConfig,
    progress: Progress,
    data: torch.Tensor | None,
    before: int = 0,
) -> tuple[Recipe, DataCanvases | None]:
    """The recipe of the run, and the canvases of data that are partly given. A run that cannot be carried out is
    refused before anything is written.
    """
    stored = progress.load("plan")
    if stored is not None:
        plan = TeacherPlan(**{name: tensor.tolist() for name, tensor in stored.items()})  # pyright: ignore[reportArgumentType]
        runs.network_calls = plan.num_canvases
        canvases = _stored_canvases(progress, runs)
        if data is not None:
            tell_what_is_left_out(runs.pipeline, data, plan, canvases)
        return _resolved(config, plan, data, progress.workers), canvases
    plan, canvases = teacher_plan(runs, base, config, data is not None), None
    recipe = _resolved(config, plan, data, progress.workers)
    method = METHODS[config.method]
    method.check(recipe)
    if data is not None:
        method.check_data(data, recipe)
        if not plan.is_whole:
            num = min(len(data), method.num_data(recipe) + progress.workers.size - 1)
            canvases, plan = look_at_canvases(runs, base, recipe, data, num, before)
            recipe = replace(recipe, plan=plan)
        tell_what_is_left_out(runs.pipeline, data, plan, canvases)
    if canvases is not None:
        kept = {**vars(canvases), "network_calls": runs.network_calls}
        progress.save(DATA_CANVASES, {name: torch.as_tensor(value) for name, value in kept.items()})
    progress.save("plan", {name: torch.tensor(value) for name, value in vars(plan).items()})
    return recipe, canvases


def _stored_canvases(progress: Progress, runs: PipelineRuns) -> DataCanvases | None:
    stored = progress.load(DATA_CANVASES)
    if stored is None:
        return None
    runs.network_calls = int(stored["network_calls"])
    return DataCanvases(stored["masked_NL"], stored["lengths"].tolist())


def _resolved(config: DistillConfig, plan: TeacherPlan, data: torch.Tensor | None, workers: Workers) -> Recipe:
    """The recipe; where its default number of sequences is more than the data have, with as many as they have."""
    recipe = config.resolve(plan, data is not None, workers)
    if data is None or config.num_sequences is not None:
        return recipe
    method = METHODS[config.method]
    room = len(data) - (method.num_data(recipe) - recipe.num_sequences)
    room -= room % workers.size
    if room >= recipe.num_sequences or room < NUM_SEQUENCES["data"]:
        return recipe
    return replace(config, num_sequences=room).resolve(plan, True, workers)
