"""Callbacks of a pipeline's call, as in diffusers, and after each block."""

from collections.abc import Callable, Sequence
from typing import Any

import torch


class Callbacks:
    """What a user wants to see of a generation: canvases after each step, and after each block.

    Args:
        pipeline: passed to each callback. Its `_callback_tensor_inputs` are the tensors that a step has to show.
        on_step_end (*optional*): called as `callback(pipeline, step, timestep, tensors)`; may return changed tensors.
        tensor_inputs (sequence of `str`, *optional*): the tensors that it gets.
        on_block_end (*optional*): called as `callback(pipeline, block, tensors)`.

    Raises:
        ValueError: if one of them is no function, or an unknown tensor is asked for.
    """

    def __init__(
        self,
        pipeline: Any,
        on_step_end: Callable[..., dict[str, Any] | None] | None,
        tensor_inputs: Sequence[str] | None,
        on_block_end: Callable[..., None] | None,
    ):
        known, tensor_inputs = pipeline._callback_tensor_inputs, tensor_inputs or []
        if unknown := [name for name in tensor_inputs if name not in known]:
            raise ValueError(f"`callback_on_step_end_tensor_inputs` must be among {known}, got {unknown}.")
        for name, callback in (("step", on_step_end), ("block", on_block_end)):
            if callback is not None and not callable(callback):
                raise ValueError(f"`callback_on_{name}_end` must be a function, got {callback!r}.")
        self._pipeline, self._tensor_inputs = pipeline, tensor_inputs
        self._on_step_end, self._on_block_end = on_step_end, on_block_end
        self._steps, self._blocks = 0, 0

    def on_step(self, t: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        """The canvases to go on with after a step."""
        step, self._steps = self._steps, self._steps + 1
        if self._on_step_end is None:
            return sample
        available = {"sample": sample}
        given = {name: available[name] for name in self._tensor_inputs}
        return (self._on_step_end(self._pipeline, step, t, given) or {}).get("sample", sample)

    def on_block(self, sample: torch.Tensor, positions: slice) -> None:
        """Shows the canvases when the block at these positions is over."""
        block, self._blocks = self._blocks, self._blocks + 1
        if self._on_block_end is not None:
            self._on_block_end(self._pipeline, block, {"sample": sample, "block_tokens": sample[:, positions]})
