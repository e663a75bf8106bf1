"""Classes and classifier-free guidance in `lsd-eval`."""

import argparse
import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch

from ..evaluation.metric_sets import MetricSet
from ..sampling.pipeline_runs import LABELS
from .prompt_flags import used_flags


def classes_of(denoiser: Any, canvases: Sequence[torch.Tensor] | None = None) -> dict[str, Any]:
    """The classes that are asked for, as options of a call: each in turn. None for a model without classes, or with a
    single one, which was trained without any.

    Args:
        denoiser ([`Denoiser`]): the model.
        canvases (sequence of `torch.LongTensor` of shape `(length,)`, *optional*): what the samples fill in. Then the
            turn is that of the canvases: fills of equal ones are of one class, so that they vary by the draws alone.
    """
    num_classes = getattr(denoiser, "num_classes", None) or 0
    if num_classes < 2:
        return {}
    if canvases is None:
        return {LABELS: torch.arange(num_classes)}
    place: dict[tuple[int, ...], int] = {}
    turns = [place.setdefault(tuple(canvas.tolist()), len(place)) for canvas in canvases]
    return {LABELS: torch.tensor(turns) % num_classes}


def check_guidance(args: argparse.Namespace, denoiser: Any) -> None:
    """Refuses guidance that the model does not have, or that cannot be chosen.

    Raises:
        ValueError: naming the flag.
    """
    scales = args.guidance_scale or []
    has_classes = classes_of(denoiser) and "guidance_scale" in inspect.signature(denoiser.forward).parameters
    if scales and not has_classes and not used_flags(args):  # after prompts there is guidance without classes
        raise ValueError(f"`--guidance-scale`: {args.model} knows no classes to be guided to. Leave it out.")
    if any(not 0 <= scale < math.inf for scale in scales):
        raise ValueError(f"`--guidance-scale` must hold numbers of at least 0, got {' '.join(map(str, scales))}.")
    if len(set(scales)) > 1 and args.frontier:
        raise ValueError("`--frontier` runs along temperatures: give one `--guidance-scale`.")


def described_conditions(args: argparse.Namespace, denoiser: Any, metrics: MetricSet, chosen: str) -> dict[str, str]:
    """Which classes were asked for, and how strongly, as name -> sentence; nothing for a model without classes.

    `chosen` says where guidance was chosen, as for [`best_of`].
    """
    if not classes_of(denoiser):
        return {"Guidance": best_of(args.guidance_scale, chosen)} if args.guidance_scale else {}
    turn = "in turn, one for each canvas" if args.tasks or metrics.canvases is not None else "in turn"
    return {"Classes": turn, "Guidance": best_of(args.guidance_scale or [0], chosen)}


def best_of(values: Sequence[float], chosen: str) -> str:
    """A setting that was chosen among these for each sampler, and where; or the only one."""
    if len(set(values)) == 1:
        return f"{values[0]:g}"
    return f"each sampler's best of {', '.join(f'{value:g}' for value in values)} {chosen}"
