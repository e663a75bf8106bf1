"""Runs of a pipeline with one scheduler after another in place of its own."""

import inspect
import numbers
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import DiffusionPipeline

from ..support.modes import eval_mode
from ..support.out_of_memory import BatchTooLarge, is_out_of_memory
from ..support.validation import did_you_mean
from .draws import row_generators


LABELS = "class_labels"


PER_SEQUENCE = (
    "prefix",
    "suffix",
    "prompt",
    "messages",
    "negative_prompt",
    "image",
    "mask_image",
    "input_ids",
    "attention_mask",
    "latents",
    "prompt_embeds",
    "negative_prompt_embeds",
    LABELS,
    "encoder_hidden_states",
    "negative_encoder_hidden_states",
)
"""Arguments of pipelines with an entry for each sequence (a list, or the rows of a tensor) or one for all."""


NUMBERS = ("num_samples", "batch_size", "num_images_per_prompt")
"""Names of the argument that tells a pipeline how many sequences to make."""


class PipelineRuns:
    """Runs a pipeline with one scheduler after another, each sequence with noise of its own seed.

    Args:
        pipeline (`DiffusionPipeline`): of a masked diffusion model.
        seed (`int`): sequence i gets a generator seeded from `(seed, i)`, whatever the batch size.
        call_kwargs: passed to every call of the pipeline (prompt, guidance, ...). If an argument in `PER_SEQUENCE` is
            a list, or a tensor with one row for each sequence, sequence i gets entry `i % len`. Class labels may also
            be a list of numbers or a 1-D tensor.

    Raises:
        ValueError: if the pipeline's call takes no `generator`, or not one of `call_kwargs`.
    """

    def __init__(self, pipeline: DiffusionPipeline, seed: int, call_kwargs: dict[str, Any]):
        self.pipeline, self.seed, self.call_kwargs = pipeline, seed, call_kwargs
        self.network_calls = 0
        self._accepted = inspect.signature(pipeline.__call__).parameters
        check_call(type(pipeline), call_kwargs)

    @property
    def time_conditioned(self) -> bool:
        """Whether the network sees the time; False if the pipeline does not say."""
        return getattr(getattr(self.pipeline, "denoiser", None), "time_conditioned", False)

    def generators(self, sequences: Sequence[int]) -> list[torch.Generator]:
        """Fresh generators for these sequences."""
        return row_generators(self.seed, sequences)

    def arguments(self, sequences: Sequence[int]) -> dict[str, Any]:
        """The arguments with which the pipeline generates these sequences in one batch.

        Raises:
            ValueError: if its call has no argument for the number of sequences.
        """
        kwargs = dict(self.call_kwargs)
        temperature = self._accepted.get("temperature")
        # LLaDA2Pipeline takes the most likely token unless told otherwise
        if temperature is not None and isinstance(temperature.default, numbers.Real):
            kwargs.setdefault("temperature", 1.0)
        given = {name: kwargs[name] for name in PER_SEQUENCE if kwargs.get(name) is not None}
        listed = [name for name, value in given.items() if _is_list(name, value)]
        # diffusers' own pipelines repeat each entry of a list by `num_images_per_prompt`
        names = NUMBERS[:2] if given else NUMBERS
        repeats = next((name for name in names if name in self._accepted), None)
        if repeats is not None and listed in ([], [LABELS]):  # labels say what to make, not how many
            labels = {name: _take(name, given[name], sequences) for name in listed}
            return {**kwargs, **labels, repeats: len(sequences)}
        if not given and len(sequences) > 1:
            raise ValueError(
                "The pipeline's call needs an argument `num_samples`, `batch_size` or `num_images_per_prompt` (or"
                f" prompts) to make {len(sequences)} sequences at once; else distil with `batch_size` 1."
            )
        for name, value in given.items():
            kwargs[name] = _take(name, value, sequences)
        return kwargs

    def run(self, scheduler: Any, num_inference_steps: int, sequences: Sequence[int]) -> None:
        """One generation of these sequences under `scheduler`.

        Raises:
            BatchTooLarge: if memory runs out.
        """
        scheduler.begin(num_inference_steps)
        kwargs = self.arguments(sequences)
        # a sampler is learned for a block; a pipeline that counts the steps of all blocks together says how many
        blocks = getattr(self.pipeline, "number_of_blocks", lambda _: 1)(kwargs)
        kwargs["num_inference_steps"] = num_inference_steps * blocks
        with scheduler_in_place(self.pipeline, scheduler), torch.no_grad():
            try:
                output = self.pipeline(generator=self.generators(sequences), **kwargs)  # type: ignore[operator]
            except (RuntimeError, MemoryError, OSError) as error:
                if not is_out_of_memory(error):
                    raise
                raise BatchTooLarge(len(sequences)) from error
        # a pipeline that calls the network less often than the scheduler reports it
        made = getattr(output, "network_calls", None)
        self.network_calls += scheduler.calls if made is None else made


def check_call(pipeline: type[DiffusionPipeline], call_kwargs: Mapping[str, Any]) -> None:
    """Checks that a kind of pipeline can be called with these arguments.

    Raises:
        ValueError: if it does not take one (the message suggests the nearest name), if the trainer sets it itself, or
            if the call takes no `generator`.
    """
    accepted = inspect.signature(pipeline.__call__).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    if "generator" not in accepted and not takes_any:
        raise ValueError(
            f"`pipeline`: the call of {pipeline.__name__} needs an argument `generator`, which it passes on to"
            " `scheduler.step`: without it a run cannot be replayed."
        )
    names = [name for name in accepted if name not in ("self", "generator", "num_inference_steps")]
    for name in call_kwargs:
        if name in ("generator", "num_inference_steps"):
            raise ValueError(f"`{name}` is set by the training itself: leave it out.")
        if name not in names and not takes_any:
            hint = did_you_mean(name, names)
            raise ValueError(f"`{name}` is not an argument of {pipeline.__name__}, which has {names}.{hint}")


def entries_of(name: str, options: Mapping[str, Any], sequences: Sequence[int]) -> dict[str, Any]:
    """The options for these sequences: of the one with this name, if it has an entry for each, theirs; `i % len`."""
    if options.get(name) is None or not _is_list(name, options[name]):
        return dict(options)
    return {**options, name: _take(name, options[name], sequences)}


def _is_list(name: str, value: Any) -> bool:
    """Whether an argument has an entry for each sequence. A list of numbers is one canvas, but many labels. A list of
    messages is one conversation.
    """
    if isinstance(value, torch.Tensor):
        return value.ndim > (0 if name == LABELS else 1)
    if not isinstance(value, list) or not value:
        return False
    return name == LABELS or not isinstance(value[0], numbers.Integral | Mapping)


def _take(name: str, value: Any, sequences: Sequence[int]) -> Any:
    if not _is_list(name, value):
        return (
            value[None].repeat_interleave(len(sequences), 0)
            if isinstance(value, torch.Tensor)
            else (value if len(sequences) == 1 else [value] * len(sequences))
        )
    taken = [value[i % len(value)] for i in sequences]
    if isinstance(value, torch.Tensor):
        return torch.stack(taken)
    # chat templates take one prompt, not a list of one
    return taken[0] if len(taken) == 1 and isinstance(taken[0], str) else taken


@contextmanager
def scheduler_in_place(pipeline: DiffusionPipeline, scheduler: Any) -> Iterator[None]:
    """Puts a scheduler into the pipeline, sets its networks to eval mode, silences its bar; restores all at the end.

    A pipeline that is not from diffusers may lack `components` and `set_progress_bar_config`.
    """
    before, bar = pipeline.scheduler, dict(getattr(pipeline, "_progress_bar_config", {}))
    set_bar = getattr(pipeline, "set_progress_bar_config", lambda **_: None)
    with eval_mode(getattr(pipeline, "components", {}).values()):
        pipeline.scheduler = scheduler
        set_bar(disable=True)
        try:
            yield
        finally:
            pipeline.scheduler = before
            set_bar(**bar)
