"""How diffusers' pipelines call a scheduler, and what their calls mean here. No other module depends on that.

- `MaskedDiffusionPipeline`, and what huggingface/diffusers#14741 plans for all: timesteps are floats that decrease in
  (0, 1]; they are times, and `t = 1` is all masked.
- `AmusedPipeline`, its image-to-image and inpainting siblings: `set_timesteps(n, temperature, device)` by position;
  the temperature is that of the noise by which the `confidence` order chooses positions. The siblings go on at step
  k of n, `n - k = int(strength * n)`, and image-to-image asks for `add_noise(tokens, timesteps[k - 1])`: the state
  *after* that step, so that -1 says the state before the first.
- `LLaDA2Pipeline`: one canvas after another, the index of the step as timestep; the schedule holds for each block.
- `DiffusionGemmaPipeline`: `mask_token_id=None`, random tokens in place of masks; refused, not a masked process.
"""

import math
import numbers
from collections.abc import Mapping
from types import FrameType
from typing import Any

import torch
from diffusers import DiffusionPipeline

from ..support.validation import check_number


class _FromConfig:
    def __repr__(self) -> str:
        return "from the config"


FROM_CONFIG: Any = _FromConfig()
"""Default of `mask_token_id`. It is not None, because a pipeline that passes None says that it has no mask."""

NO_MASK = -1
"""An id that no token has."""

MASKING_SCHEDULES = {"cosine": "cosine", "linear": "uniform"}
"""diffusers' `AmusedScheduler` calls a base grid `masking_schedule`."""

SAMPLING_METHODS = ("auto", "multinomial", "greedy")


def translated(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of another scheduler's config that have other names here."""
    entries = dict(config)
    if entries.get("masking_schedule") in MASKING_SCHEDULES:
        entries.setdefault("schedule", MASKING_SCHEDULES[entries.pop("masking_schedule")])
    return entries


def check_block_length(config: Any) -> None:
    """Raises `ValueError` unless a scheduler's config has a length of blocks for `LLaDA2Pipeline`."""
    check_number("block_length", config.block_length, integer=True, low=1)


class BlockPipelineMethods:
    """The methods that `LLaDA2Pipeline` needs of a scheduler besides `step`."""

    num_inference_steps: int | None
    masks_left: bool | torch.Tensor = True
    """Whether the latest step left a masked position; with LLaDA2Pipeline: in the block."""

    def check_eos_finished(
        self,
        cur_x: torch.Tensor,
        sampled_tokens: torch.Tensor,
        final_transfer: torch.Tensor,
        finished: torch.Tensor,
        eos_token_id: int,
        mask_token_id: int,
        prompt_length: int,
    ) -> torch.Tensor:
        """Which rows are complete: everything before their first end-of-sequence token is known.

        Args:
            cur_x (`torch.LongTensor` of shape `(batch_size, seq_len)`): the sequence so far, prompt included.
            sampled_tokens, final_transfer: not needed.
            finished (`torch.BoolTensor` of shape `(batch_size,)`): rows that were complete before; they stay so.
            eos_token_id, mask_token_id, prompt_length (`int`): as the pipeline knows them.
        """
        generated = cur_x[:, prompt_length:]
        ended = (generated == eos_token_id).cummax(dim=1).values
        complete = ((generated != mask_token_id) | ended).all(dim=1)
        return finished | (complete & ended.any(dim=1))

    def check_block_should_continue(
        self,
        step_idx: int,
        masks_remaining: bool | torch.Tensor,
        editing_enabled: bool = False,
        editing_transfer_index: torch.Tensor | None = None,
        post_steps: int = 0,
        max_post_steps: int = 0,
        finished: torch.Tensor | None = None,
    ) -> bool:
        """Whether this block needs another network call. It does not if it is full, or if all rows are complete.

        Args:
            step_idx (`int`): steps made in this block.
            masks_remaining (`bool`): whether there was a mask before the latest step.
            editing_enabled, editing_transfer_index, post_steps, max_post_steps: not needed.
            finished (`torch.BoolTensor` of shape `(batch_size,)`, *optional*): complete rows.
        """
        if finished is not None and bool(finished.all()):
            return False
        steps = self.num_inference_steps or 0
        return step_idx < steps and bool(masks_remaining) and bool(self.masks_left)


def read_positional(args: tuple[Any, ...], device: Any, temperature: Any) -> tuple[Any, Any]:
    """Device and temperature out of `set_timesteps(n, device)` or `set_timesteps(n, temperature, device)`.

    Raises:
        ValueError: for more arguments than that.
    """
    if len(args) > 2:
        raise ValueError(f"`set_timesteps` takes at most `(num_inference_steps, temperature, device)`, got {args}.")
    for value in args:
        if value is None or isinstance(value, str | torch.device):
            device = value
        else:
            temperature = value
    return device, temperature


def follows_amused(args: tuple[Any, ...]) -> bool:
    """Whether `set_timesteps(n, *args)` was called as aMUSEd's pipelines call it: with a temperature by position."""
    return any(value is not None and not isinstance(value, str | torch.device) for value in args)


def check_strength(num_inference_steps: int, caller: FrameType | None) -> None:
    """Checks the `strength` of aMUSEd's pipelines. They do not tell a scheduler about one that leaves no step, and
    fail on leftover masks at the end, so this reads it from the calling frame.

    Raises:
        ValueError: if it is out of range, or the pipeline would make no step.
    """
    variables = caller.f_locals if caller else {}
    strength = variables.get("strength")
    if not isinstance(variables.get("self"), DiffusionPipeline) or not isinstance(strength, int | float):
        return
    if not 0 < strength <= 1:
        raise ValueError(f"`strength` must be in (0, 1], got {strength}.")
    if int(num_inference_steps * strength) < 1:
        raise ValueError(
            f"`strength` {strength} of {num_inference_steps} steps is less than one step: raise `strength` to"
            f" {math.ceil(1e3 / num_inference_steps) / 1e3} or more, or make more steps."
        )


def position_temperatures(temperature: Any, num_steps: int) -> list[float]:
    """Gumbel temperatures of the `confidence` order, one a step: from a start to an end, or from a number to 0.01
    (AmusedScheduler).

    Raises:
        ValueError: if `temperature` is neither a number >= 0 nor a pair of them.
    """
    pair = list(temperature) if isinstance(temperature, tuple | list) else [temperature, 0.01]
    if len(pair) != 2 or not all(
        isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) and x >= 0 for x in pair
    ):
        raise ValueError(f"`temperature` must be a number >= 0, or a pair (start, end) of them, got {temperature!r}.")
    return torch.linspace(float(pair[0]), float(pair[1]), num_steps, dtype=torch.float64).tolist()


def step_index(timestep: Any, times: list[float]) -> int:
    """Index of the step that a pipeline means: an integer is that index itself, a float one of the times.

    Raises:
        ValueError: if it is neither.
    """
    is_tensor = isinstance(timestep, torch.Tensor)
    is_index = not timestep.is_floating_point() if is_tensor else isinstance(timestep, numbers.Integral)
    try:
        value = float(timestep)
    except (TypeError, ValueError, RuntimeError):
        value = math.nan
    index = int(value) if is_index else min(range(len(times)), key=lambda k: abs(times[k] - value))
    if not (0 <= index < len(times) if is_index else abs(times[index] - value) <= 1e-6):
        raise ValueError(
            f"`timestep` must be one of `timesteps`, got {timestep}. (An integer is the index of a step, from 0 to"
            f" {len(times) - 1}.)"
        )
    return index


def resolve_mask(mask_token_id: Any, configured: int | None, has_mask: bool) -> int:
    """The mask's id: what the pipeline says, else what the config says. -1 under noise without a mask.

    Raises:
        ValueError: if there is none, they differ, or only one of pipeline and scheduler has a mask.
    """
    if not has_mask:
        if isinstance(mask_token_id, int):
            raise ValueError(
                f"`mask_token_id` is {mask_token_id}: this pipeline's process masks tokens, the scheduler's does not"
                " (`corruption`)."
            )
        return NO_MASK
    if mask_token_id is None:
        raise ValueError(
            "`mask_token_id` is None: this pipeline's corruption is uniform (random tokens, no mask), and LSDScheduler"
            " samples masked diffusion models only. Keep the pipeline's own scheduler."
        )
    if mask_token_id is FROM_CONFIG:
        if configured is None:
            raise ValueError("`mask_token_id` is not set: build the scheduler with `LSDScheduler(mask_token_id=...)`.")
        return configured
    if configured is not None and mask_token_id != configured:
        raise ValueError(
            f"`mask_token_id` is {mask_token_id} in this pipeline but {configured} in the scheduler's config: the"
            " sampler was made for another model."
        )
    return mask_token_id


def check_temperature(temperature: Any) -> None:
    """Raises `ValueError` unless this is a number >= 0. (An infinite one draws from all possible tokens alike.)"""
    is_number = isinstance(temperature, numbers.Real) and not isinstance(temperature, bool)
    is_scalar = isinstance(temperature, torch.Tensor) and temperature.numel() == 1
    if not (is_number or is_scalar):
        raise ValueError(f"`temperature` must be a number >= 0, got {temperature!r}.")
    if not temperature >= 0:  # pyright: ignore[reportOperatorIssue]
        raise ValueError(f"`temperature` must be >= 0, got {temperature}.")


def draw_temperature(temperature: float, sampling_method: str) -> float:
    """The temperature of the token draws: `"greedy"` takes the most likely token, whatever the temperature.

    Raises:
        ValueError: for a temperature that is no number >= 0, or an unknown method.
    """
    if sampling_method not in SAMPLING_METHODS:
        raise ValueError(f"`sampling_method` must be one of {list(SAMPLING_METHODS)}, got {sampling_method!r}.")
    check_temperature(temperature)
    return 0.0 if sampling_method == "greedy" else temperature
