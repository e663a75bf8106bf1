"""The arguments of a pipeline's call, checked against its denoiser and its scheduler, and handed to both."""

import inspect
from typing import Any

import torch

from ..sampling.diffusers_calls import check_temperature
from ..sampling.draws import Generators, check_generators
from ..support.validation import check_number
from .base import Denoiser


def check_scheduler(scheduler: Any, denoiser: Denoiser) -> None:
    """Raises `ValueError` if a scheduler was built for another denoiser."""
    config = scheduler.config
    for name, default in (("mask_token_id", None), ("corruption", "absorbing")):
        theirs, ours = getattr(config, name, default), getattr(denoiser, name, default)
        if theirs != ours:
            raise ValueError(
                f"`scheduler` has the `{name}` {theirs}, but the denoiser's is {ours}: build it with"
                " `LSDScheduler(**pipeline.denoiser.scheduler_config())`."
            )


def conditioning_of(
    denoiser: Denoiser, class_labels: Any, guidance_scale: float | None, batch_size: int, device: torch.device
) -> dict[str, Any]:
    """Those further arguments of the denoiser that were given.

    Raises:
        ValueError: naming the argument that does not fit.
    """
    given: dict[str, Any] = {}
    if class_labels is not None:
        try:
            labels = torch.as_tensor(class_labels, dtype=torch.int64, device=device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"`class_labels` must be integers, got {class_labels!r}.") from error
        if labels.ndim > 1 or labels.numel() not in (1, batch_size):
            raise ValueError(f"`class_labels` must be one label or {batch_size}, got shape {tuple(labels.shape)}.")
        most = getattr(denoiser, "num_classes", None)
        if most is not None and not 0 <= int(labels.min()) <= int(labels.max()) <= most:
            raise ValueError(f"`class_labels` must be in [0, {most}] ({most}: no class), got {class_labels}.")
        given["class_labels"] = labels.expand(batch_size)
    check_number("guidance_scale", guidance_scale, optional=True)
    if guidance_scale is not None:
        given["guidance_scale"] = guidance_scale
    accepted = inspect.signature(denoiser.forward).parameters
    for name in given:
        if name not in accepted:
            raise ValueError(f"`{name}` is not supported by {type(denoiser).__name__}.")
    return given


def step_arguments(
    scheduler: Any, temperature: float, generator: Generators, top_p: float | None, top_k: int | None
) -> dict[str, Any]:
    """What each step of the scheduler is told.

    Raises:
        ValueError: if one is out of range, or this scheduler does not know it.
    """
    # schedulers differ in what their step accepts, in diffusers too
    parameters = inspect.signature(scheduler.step).parameters
    check_temperature(temperature)
    check_generators(generator)
    if "temperature" not in parameters and temperature != 1:
        raise ValueError(f"`temperature` is not supported by {type(scheduler).__name__}, got {temperature}.")
    available = {"temperature": temperature, "generator": generator, "top_p": top_p, "top_k": top_k}
    for name in ("top_p", "top_k"):
        if available[name] is None:
            del available[name]
        elif name not in parameters:
            raise ValueError(f"`{name}` is not supported by {type(scheduler).__name__}.")
    return {name: value for name, value in available.items() if name in parameters}


def position_noise(scheduler: Any, alg_temp: float | None) -> dict[str, Any]:
    """What `set_timesteps` is told about the choice of positions.

    Raises:
        ValueError: if it is out of range, or this scheduler does not know it.
    """
    if alg_temp is None:
        return {}
    check_number("alg_temp", alg_temp, low=0)
    if "temperature" not in inspect.signature(scheduler.set_timesteps).parameters:
        raise ValueError(f"`alg_temp` is not supported by {type(scheduler).__name__}.")
    return {"temperature": (alg_temp, alg_temp)}


def check_number_of_generators(generator: Generators, num_samples: int) -> None:
    """Raises `ValueError` if a list of generators does not have one for each sample."""
    if isinstance(generator, list) and len(generator) != num_samples:
        raise ValueError(f"`generator` has {len(generator)} entries for {num_samples} samples.")


def refuse_with_prompt(**others: Any) -> None:
    """Raises `ValueError` for the first argument that is given beside a prompt."""
    for name, value in others.items():
        if value is not None:
            raise ValueError(f"`prompt` and `messages` exclude `{name}`: leave one of them out.")


def refuse(reason: str, **others: Any) -> None:
    """Raises `ValueError` for the first argument that is given, with the reason."""
    for name, value in others.items():
        if value is not None:
            raise ValueError(f"`{name}` {reason}: leave it out.")
