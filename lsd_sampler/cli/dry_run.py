"""`lsd-train --dry-run`: the downloads, network calls and memory of a run."""

import argparse
import sys
from dataclasses import replace
from typing import Any

import torch

from ..denoisers.prompts import DEFAULT_NEW_TOKENS
from ..denoisers.published import SHORT_NAMES, HubModel
from ..denoisers.sizes import ModelSize
from ..sampling.pipeline_runs import PipelineRuns
from ..training import METHODS, DistillConfig
from ..training.cost import memory, network_calls
from ..training.distill import base_scheduler
from ..training.recording import teacher_plan
from ..training.teacher_plan import TeacherPlan


def plan_of(pipeline: Any, config: DistillConfig, call_kwargs: dict[str, Any]) -> TeacherPlan:
    """The plan of a call of the pipeline. For our own pipeline it is known; otherwise a run of one step shows it."""
    denoiser, canvases = getattr(pipeline, "denoiser", None), call_kwargs.get("input_ids")
    if denoiser is not None and isinstance(canvases, torch.Tensor) and set(call_kwargs) <= {"length", "input_ids"}:
        return _plan_of_canvases(canvases, denoiser, config)
    if denoiser is not None and set(call_kwargs) <= {"length"}:
        return _plan(call_kwargs.get("length", denoiser.length), denoiser.time_conditioned, config, denoiser.hole_id)
    return teacher_plan(PipelineRuns(pipeline, config.seed, call_kwargs), base_scheduler(pipeline, config), config)


def plan_of_published(size: ModelSize, config: DistillConfig, call_kwargs: dict[str, Any]) -> TeacherPlan:
    """The same for a model that is not loaded."""
    length, num_blocks = call_kwargs.get("length", size.length), 1
    if has_prompts := "prompt" in call_kwargs or "messages" in call_kwargs:
        new = call_kwargs.get("max_new_tokens", DEFAULT_NEW_TOKENS)
        length = min(call_kwargs.get("block_length", new), new)
        num_blocks = -(-new // length)
    plan = _plan(length, size.time_conditioned, config, size.columns - 1)
    return replace(plan, num_canvases=num_blocks, is_whole=plan.is_whole and not has_prompts)


def describe_cache(size: ModelSize, call_kwargs: dict[str, Any]) -> dict[str, int]:
    """The memory of a cache for each position, prompts included, where the model is not loaded."""
    if call_kwargs.get("cache", "none") == "none":
        return {}
    return {"cache_bytes_per_position": size.key_value_bytes * (2 if call_kwargs.get("guidance_scale") else 1)}


def _plan(length: int, time_conditioned: bool, config: DistillConfig, mask_token_id: int) -> TeacherPlan:
    return TeacherPlan(length, 1, config.teacher_steps_for(length, time_conditioned), mask_token_id)


def _plan_of_canvases(canvas_NL: torch.Tensor, denoiser: Any, config: DistillConfig) -> TeacherPlan:
    """The plan of a call for partly given canvases, which depends on those of the first batch."""
    first = range(min(config.batch_size, config.most_sequences))
    masked_BL = canvas_NL[[i % len(canvas_NL) for i in first]] == denoiser.hole_id
    # without a mask, what is given is no matter of the noise
    masked_B = masked_BL.sum(1) if denoiser.mask_token_id is not None else torch.tensor([masked_BL.shape[1]])
    fewest, most = (int(number) for number in masked_B.aminmax())
    plan = _plan(most, denoiser.time_conditioned, config, denoiser.hole_id)
    return replace(plan, is_whole=False, fewest_masked=fewest)


def published(args: argparse.Namespace) -> HubModel | None:
    """The published model of a dry run, if it need not be loaded."""
    return SHORT_NAMES.get(args.model) if args.dry_run and args.model else None


def as_if_all_masked(plan: TeacherPlan) -> TeacherPlan:
    """The plan of partly given canvases that are not known, as the model is not loaded; a note on stderr says so."""
    print("The model is not loaded for a dry run: its canvases count as all masked.", file=sys.stderr)
    return replace(plan, is_whole=False)


def describe_download(model: HubModel) -> dict[str, Any]:
    """The files that would be fetched."""
    return {"hub_id": model.hub_id, "files": model.files, "download_bytes": model.size.weight_bytes}


def describe_cost(
    size: ModelSize | None, config: DistillConfig, plan: TeacherPlan, process_bytes: int, cache_bytes: int = 0
) -> dict[str, Any]:
    """Network calls and memory.

    Args:
        size ([`ModelSize`], *optional*): size of the denoiser; None where it is part of a pipeline of another kind.
        config ([`DistillConfig`]), plan ([`TeacherPlan`]): those of the run.
        process_bytes (`int`): memory of the process without the model, where that counts: on the CPU.
        cache_bytes (`int`): memory of keys and values.
    """
    recipe = config.resolve(plan, config.paths == "data")
    METHODS[config.method].check(recipe)
    cost: dict[str, Any] = {
        "paths": recipe.source,
        "num_sequences": recipe.num_sequences,
        "canvases": plan.num_canvases,
        "masked_positions": [plan.fewest_masked or plan.num_masked, plan.num_masked],
        "network_calls": network_calls(recipe),
    }
    if size is None:
        return cost
    needs = {"process": process_bytes, **memory(size, recipe)} | ({"cache": cache_bytes} if cache_bytes else {})
    return {**cost, "parameters": size.parameters, "memory_bytes": {**needs, "total": sum(needs.values())}}
