"""Text (or token) generation with any denoiser and any scheduler of this library."""

import inspect
import logging
import math
import numbers
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import diffusers
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.outputs import BaseOutput

from .denoisers.auto import find_checkpoint, load_denoiser
from .denoisers.base import Denoiser
from .denoisers.files import PIPELINE_NAME
from .denoisers.frames import held_frame
from .denoisers.oracle_names import is_oracle_spec
from .denoisers.prediction import Predictor
from .denoisers.tokenizer_files import check_tokenizer_files
from .denoisers.vocabulary import ids_without_token, token_names, unknown_share
from .sampling.diffusers_calls import check_temperature
from .sampling.draws import Generators, check_generators
from .scheduling_lsd import LSDScheduler
from .support.validation import check_number


logger = logging.getLogger(__name__)

DEFAULT_STEPS = 64

TokenIds = Sequence[int] | torch.Tensor


@dataclass
class MaskedDiffusionPipelineOutput(BaseOutput):
    """Output of [`MaskedDiffusionPipeline`].

    Args:
        texts (`list[str]`, *optional*): decoded samples; None without a tokenizer, or when ids were asked for.
        sequences (`torch.LongTensor` of shape `(batch_size, length)`): token ids, prefix and suffix included.
        network_calls (`int`, *optional*): calls that were made; fewer than steps where a time-free denoiser had
            predicted for the same tokens before.
        sequence_calls (`torch.LongTensor` of shape `(batch_size,)`, *optional*): calls that each sample was part of.
    """

    texts: list[str] | None
    sequences: torch.Tensor
    network_calls: int | None = None
    sequence_calls: torch.Tensor | None = None


class MaskedDiffusionPipeline(DiffusionPipeline):
    r"""
    Generates sequences with a masked diffusion model: from nothing, from a prefix and suffix, or by filling in masks.

    Time runs from `t = 1` (all masked) to `t = 0` (data). The scheduler decides at which times the denoiser is called.
    One scheduled step is one call.

    Args:
        denoiser ([`~lsd_sampler.denoisers.Denoiser`]): predicts the clean tokens.
        scheduler ([`LSDScheduler`]): reveals tokens step by step.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): needed for texts only.
    """

    model_cpu_offload_seq = "denoiser"
    _interrupt = False
    _optional_components = ["tokenizer"]
    _callback_tensor_inputs = ["sample"]

    denoiser: Denoiser
    scheduler: Any
    tokenizer: Any | None

    def __init__(self, denoiser: Denoiser, scheduler: SchedulerMixin, tokenizer: Any | None = None):
        super().__init__()
        self.register_modules(denoiser=denoiser, scheduler=scheduler, tokenizer=tokenizer)
        self._without_token: tuple[Any, Any, list[int]] = (None, None, [])

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        r"""
        Loads a saved pipeline, or puts one together around a raw research checkpoint.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): a saved pipeline (folder or Hub id), or a name that
                [`load_denoiser`] takes: a raw checkpoint, a short name such as `radd`, an oracle such as `countdown`.
                The scheduler is then the plain base solver that fits the denoiser.
            scheduler, tokenizer, denoiser (*optional*): replace the loaded component.
            dtype (`torch.dtype`, *optional*): precision of the denoiser; `torch_dtype` is the same.
            revision, subfolder, token, cache_dir, local_files_only, force_download (*optional*): where and how to look
                on the Hub.
            kwargs: further options, as in diffusers for a saved pipeline, and as for [`load_denoiser`] otherwise.

        Raises:
            OSError: if a folder, file or repository is missing or out of reach.
            ValueError: for an unknown name or a damaged file.
            TypeError: for an option that the denoiser's family does not have.
        """
        name = os.fspath(pretrained_model_name_or_path)
        hub_names = ("revision", "subfolder", "token", "cache_dir", "local_files_only", "force_download")
        hub_kwargs = {key: kwargs.pop(key) for key in hub_names if kwargs.get(key) is not None}
        if is_oracle_spec(name):
            return cls._from_denoiser(name, None, kwargs)
        # fetched here, because diffusers itself would fetch only some files of a pipeline with a learned scheduler
        wanted = {"weight_name": kwargs.get("weight_name"), "trust_remote_code": bool(kwargs.get("trust_remote_code"))}
        location, checkpoint = find_checkpoint(name, **wanted, **hub_kwargs)
        if PIPELINE_NAME not in checkpoint.names:
            return cls._from_denoiser(location, checkpoint.folder / (checkpoint.file or ""), kwargs)
        check_tokenizer_files(checkpoint.folder / "tokenizer")
        pipeline = super().from_pretrained(str(checkpoint.folder), **kwargs)
        pipeline.register_to_config(_name_or_path=name)
        return pipeline

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Saves the pipeline, as diffusers does. A `~` is the home folder, as for `from_pretrained`."""
        super().save_pretrained(os.path.expanduser(save_directory), *args, **kwargs)

    @classmethod
    def _from_denoiser(cls, name: str, path: Path | None, kwargs: dict[str, Any]) -> Self:
        denoiser, scheduler = kwargs.pop("denoiser", None), kwargs.pop("scheduler", None)
        own = {"tokenizer": kwargs.pop("tokenizer")} if "tokenizer" in kwargs else {}
        if denoiser is None:
            kwargs.setdefault("dtype", kwargs.pop("torch_dtype", None))
            denoiser = load_denoiser(path or name, **kwargs)
            denoiser.name_or_path = name
        scheduler = scheduler or LSDScheduler(**denoiser.scheduler_config())
        pipeline = cls(denoiser, scheduler, **{"tokenizer": denoiser.tokenizer, **own})
        pipeline.register_to_config(_name_or_path=name)
        return pipeline

    @torch.no_grad()
    def __call__(
        self,
        prefix: str | Sequence[str] | TokenIds | None = None,
        suffix: str | Sequence[str] | TokenIds | None = None,
        input_ids: TokenIds | Sequence[Sequence[int]] | None = None,
        *,
        length: int | None = None,
        num_samples: int = 1,
        num_inference_steps: int | None = None,
        temperature: float = 1.0,
        class_labels: int | TokenIds | None = None,
        guidance_scale: float | None = None,
        generator: Generators = None,
        output_type: str = "text",
        callback_on_step_end: Callable[[Any, int, torch.Tensor, dict[str, Any]], dict[str, Any] | None] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] | None = ("sample",),
        return_dict: bool = True,
    ) -> MaskedDiffusionPipelineOutput | tuple[list[str] | None, torch.Tensor]:
        r"""
        Generates sequences. Tokens that are given are never changed.

        Args:
            prefix, suffix (`str`, or token ids of shape `(n,)`, *optional*): how each sample begins and ends. With a
                list of texts, each has a canvas of its own.
            input_ids (token ids of shape `(length,)` or `(batch_size, length)`, *optional*): canvases in which mask
                ids (-1 where noise does not mask) are to be filled in; excludes `prefix` and `suffix`. They may hold
                the tokens that the denoiser puts around a canvas (`[CLS]` ... `[SEP]`, as from a tokenizer): these are
                not put there again.
            length (`int`, *optional*): tokens per sample, prefix and suffix included; default: that of `input_ids`,
                or else the denoiser's.
            num_samples (`int`): number of samples for each canvas; those of one canvas follow each other.
            num_inference_steps (`int`, *optional*): number of steps, that is, of calls of the denoiser (or fewer: see
                the output's `network_calls`); default: the largest number that the scheduler learned, or 64 if it can
                do any.
            temperature (`float`): temperature of the token draws; 0 takes the most likely token.
            class_labels (`int`, or `torch.LongTensor` of shape `(batch_size,)`, *optional*): classes, for
                class-conditional denoisers.
            guidance_scale (`float`, *optional*): strength of classifier-free guidance, where the denoiser has it.
            generator (`torch.Generator`, or a list of one per sample, *optional*): makes the samples reproducible.
            output_type (`str`): `"text"` (texts too, if there is a tokenizer) or `"ids"`.
            callback_on_step_end (`Callable`, *optional*): called as `callback(pipeline, step, timestep,
                {"sample": x})` after each step; may return a dict with a changed `sample`. A frame that `input_ids`
                hold is not part of it.
            callback_on_step_end_tensor_inputs (`list[str]`, *optional*): the tensors that the callback gets; only
                `"sample"` exists, and None is none. As in diffusers, a callback that sets `pipeline._interrupt = True`
                stops the generation. Masks that are left then stay.
            return_dict (`bool`): whether to return [`MaskedDiffusionPipelineOutput`] or a tuple `(texts, sequences)`.

        Raises:
            ValueError: for arguments that are out of range or exclude each other.
        """
        if output_type not in ("text", "ids"):
            raise ValueError(f"`output_type` must be 'text' or 'ids', got {output_type!r}.")
        num_samples = _positive("num_samples", num_samples)
        tensor_inputs = _check_tensor_inputs(callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        if callback_on_step_end is not None and not callable(callback_on_step_end):
            raise ValueError(f"`callback_on_step_end` must be a function, got {callback_on_step_end!r}.")
        self._check_scheduler()
        step_kwargs = self._step_kwargs(temperature, generator)
        begins, canvas, ends = self._framed(
            self._canvas(prefix, suffix, input_ids, length).repeat_interleave(num_samples, dim=0)
        )
        if isinstance(generator, list) and len(generator) != len(canvas):
            raise ValueError(f"`generator` has {len(generator)} entries for {len(canvas)} samples.")

        device = self._execution_device
        canvas = canvas.to(device)
        given_BL = canvas != self.denoiser.hole_id
        conditioning = self._conditioning(class_labels, guidance_scale, len(canvas))
        predictor = Predictor(self.denoiser, self.scheduler, conditioning, self._ids_without_token())
        self.scheduler.set_timesteps(self._num_steps(num_inference_steps), device=device)
        sample = canvas if self.denoiser.mask_token_id is not None else self._noise(canvas, given_BL, generator)
        # a template without holes asks for nothing
        timesteps = [] if bool(given_BL.all()) else self.scheduler.timesteps
        self._interrupt = False
        with self.progress_bar(total=len(timesteps)) as progress_bar:  # pyright: ignore[reportCallIssue]
            for i, t in enumerate(timesteps):
                if self.interrupt:
                    break
                model_output = predictor(sample, t)
                stepped = self.scheduler.step(model_output, t, self._shaped(sample), **step_kwargs).prev_sample
                sample = torch.where(given_BL, canvas, stepped.flatten(1))
                if callback_on_step_end is not None:
                    available = {"sample": sample}
                    given = {name: available[name] for name in tensor_inputs}
                    sample = (callback_on_step_end(self, i, t, given) or {}).get("sample", sample)
                progress_bar.update()

        self.maybe_free_model_hooks()
        sample = torch.cat([begins.to(device), sample, ends.to(device)], dim=1)
        texts = None
        if output_type == "text" and self.tokenizer is not None:
            texts = self.tokenizer.batch_decode(sample.tolist())
        if not return_dict:
            return texts, sample
        return MaskedDiffusionPipelineOutput(texts, sample, predictor.passes, predictor.calls_B)

    @property
    def interrupt(self) -> bool:
        """Whether the generation will stop before its next step. A callback sets `_interrupt`, as in diffusers."""
        return self._interrupt

    def _ids_without_token(self) -> list[int]:
        """Ids of the denoiser for which the tokenizer has no token. They are never drawn, because no text can be made
        of them. Ids that the denoiser itself does not predict are not among them.
        """
        denoiser, tokenizer, ids = self._without_token
        if denoiser is not self.denoiser or tokenizer is not self.tokenizer:
            excluded = {self.denoiser.mask_token_id, *getattr(self.denoiser, "excluded_token_ids", ())}
            # noise that does not mask draws among all of them
            num_ids = 0 if self.denoiser.mask_token_id is None else self.denoiser.vocab_size + 1
            ids = [i for i in ids_without_token(self.tokenizer, num_ids) if i not in excluded]
            if ids:
                num = f"{len(ids)} of {self.denoiser.vocab_size} ids"
                logger.warning("%s have no token in the tokenizer, %d the first: they are never drawn.", num, ids[0])
            self._without_token = self.denoiser, self.tokenizer, ids
        return ids

    def _check_scheduler(self) -> None:
        config = self.scheduler.config
        for name, default in (("mask_token_id", None), ("corruption", "absorbing")):
            theirs, ours = getattr(config, name, default), getattr(self.denoiser, name, default)
            if theirs != ours:
                raise ValueError(
                    f"`scheduler` has the `{name}` {theirs}, but the denoiser's is {ours}: build it with"
                    " `LSDScheduler(**pipeline.denoiser.scheduler_config())`."
                )

    def _conditioning(self, class_labels: Any, guidance_scale: float | None, batch_size: int) -> dict[str, Any]:
        """Those further arguments of the denoiser that were given."""
        given: dict[str, Any] = {}
        if class_labels is not None:
            try:
                labels = torch.as_tensor(class_labels, dtype=torch.int64, device=self._execution_device)
            except (TypeError, ValueError, RuntimeError) as error:
                raise ValueError(f"`class_labels` must be integers, got {class_labels!r}.") from error
            if labels.ndim > 1 or labels.numel() not in (1, batch_size):
                raise ValueError(f"`class_labels` must be one label or {batch_size}, got shape {tuple(labels.shape)}.")
            most = getattr(self.denoiser, "num_classes", None)
            if most is not None and not 0 <= int(labels.min()) <= int(labels.max()) <= most:
                raise ValueError(f"`class_labels` must be in [0, {most}] ({most}: no class), got {class_labels}.")
            given["class_labels"] = labels.expand(batch_size)
        check_number("guidance_scale", guidance_scale, optional=True)
        if guidance_scale is not None:
            given["guidance_scale"] = guidance_scale
        accepted = inspect.signature(self.denoiser.forward).parameters
        for name in given:
            if name not in accepted:
                raise ValueError(f"`{name}` is not supported by {type(self.denoiser).__name__}.")
        return given

    def _noise(self, canvas: torch.Tensor, given_BL: torch.Tensor, generator: Generators) -> torch.Tensor:
        """Random tokens in the holes."""
        return torch.where(given_BL, canvas, self.scheduler.sample_prior(*canvas.shape, generator, canvas.device))

    def _shaped(self, sample: torch.Tensor) -> torch.Tensor:
        """The canvas as the scheduler takes it: with height and width, if its tokens form an image."""
        shape = getattr(self.denoiser, "canvas_shape", None)
        return sample if shape is None or sample[0].numel() != math.prod(shape) else sample.view(-1, *shape)

    def _step_kwargs(self, temperature: float, generator: Generators) -> dict[str, Any]:
        # schedulers differ in what their step accepts, in diffusers too
        parameters = inspect.signature(self.scheduler.step).parameters
        check_temperature(temperature)
        check_generators(generator)
        if "temperature" not in parameters and temperature != 1:
            raise ValueError(f"`temperature` is not supported by {type(self.scheduler).__name__}, got {temperature}.")
        available = {"temperature": temperature, "generator": generator}
        return {name: value for name, value in available.items() if name in parameters}

    def _num_steps(self, num_inference_steps: int | None) -> int:
        if num_inference_steps is not None:
            return _positive("num_inference_steps", num_inference_steps)
        learned = getattr(self.scheduler, "learned_sampler", None)
        return max(learned.steps) if learned is not None and learned.steps else DEFAULT_STEPS

    def _canvas(
        self,
        prefix: str | Sequence[str] | TokenIds | None,
        suffix: str | Sequence[str] | TokenIds | None,
        input_ids: TokenIds | Sequence[Sequence[int]] | None,
        length: int | None,
    ) -> torch.Tensor:
        """The canvases to fill in, of shape `(batch_size, length)`."""
        if length is not None:
            length = _positive("length", length)
        if input_ids is None:
            length = self.denoiser.length if length is None else self._check_length(length)
            pairs = zip(*_equally_many(prefix, suffix), strict=True)
            return torch.cat([self._frame(start, end, length) for start, end in pairs])
        if prefix is not None or suffix is not None:
            raise ValueError("`input_ids` excludes `prefix` and `suffix`: put their tokens into `input_ids`.")
        canvas = self.canvas_of(input_ids)
        if length is not None and length != canvas.shape[1]:
            raise ValueError(f"`length` is {length}, but `input_ids` has {canvas.shape[1]} positions.")
        return canvas

    def canvas_of(self, input_ids: TokenIds | Sequence[Sequence[int]]) -> torch.Tensor:
        """Canvases in which masks are to be filled in, of shape `(batch_size, length)`.

        Raises:
            ValueError: if this pipeline cannot fill them in.
        """
        canvas = self._check_ids("input_ids", input_ids, holes_allowed=True)
        canvas = canvas[None] if canvas.ndim == 1 else canvas
        if canvas.ndim != 2 or not canvas.numel():
            shape = tuple(canvas.shape)
            raise ValueError(f"`input_ids` must have shape (length,) or (batch_size, length), got {shape}.")
        self._check_length(self._framed(canvas)[1].shape[1])
        return canvas

    def _framed(self, canvas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The canvases in three parts: the denoiser's own frame before, the part to fill in, and the frame after."""
        before, after = held_frame(canvas, getattr(self.denoiser, "frame_token_ids", None))
        return canvas.tensor_split((before, canvas.shape[1] - after), dim=1)  # pyright: ignore[reportReturnType]

    def _frame(self, prefix: str | TokenIds | None, suffix: str | TokenIds | None, length: int) -> torch.Tensor:
        start, end = self._encode("prefix", prefix), self._encode("suffix", suffix)
        room = length - len(start) - len(end)
        if room < 0:
            sizes = f"{len(start)} + {len(end)}"
            raise ValueError(f"`prefix` and `suffix` have {sizes} tokens, more than `length` {length}.")
        return torch.cat([start, start.new_full((room,), self.denoiser.hole_id), end])[None]

    def _encode(self, name: str, text: str | TokenIds | None) -> torch.Tensor:
        if text is None:
            return torch.empty(0, dtype=torch.int64)
        if isinstance(text, str):
            if self.tokenizer is None:
                raise ValueError(f"`{name}` is a text, but this pipeline has no tokenizer: pass token ids.")
            # of an empty text, an empty list would become floats
            text = torch.tensor(self._tokens_of(name, text), dtype=torch.int64)
        ids = self._check_ids(name, text, holes_allowed=False)
        if ids.ndim != 1:
            raise ValueError(f"`{name}` must be a text or token ids of shape (n,), got {tuple(ids.shape)}.")
        return ids

    def _tokens_of(self, name: str, text: str) -> list[int]:
        assert self.tokenizer is not None
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        if said := unknown_share(self.tokenizer, ids):
            logger.warning("`%s`: %s", name, said)
        most = self.denoiser.vocab_size - (self.denoiser.mask_token_id is None)
        for i in ids:
            if i > most and i != self.denoiser.hole_id:
                token = token_names(self.tokenizer)(i)
                raise ValueError(
                    f"`{name}` holds {token!r}, token {i} of the tokenizer, but the denoiser has {most + 1} ids only:"
                    " the tokenizer is larger than the model. Leave such words out."
                )
        return ids

    def _check_ids(self, name: str, ids: Any, holes_allowed: bool) -> torch.Tensor:
        try:
            ids = torch.as_tensor(ids)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"`{name}` must be token ids in rows of equal length: {error}") from error
        if ids.numel() and (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool):
            raise ValueError(f"`{name}` must be integer token ids, got {ids.dtype}.")
        ids, hole = ids.to("cpu", torch.int64), self.denoiser.hole_id
        most = self.denoiser.vocab_size - (self.denoiser.mask_token_id is None)
        bad = ids[torch.where(ids == hole, not holes_allowed, (ids < 0) | (ids > most))]
        if bad.numel() and int(bad[0]) == hole:
            what = "the mask" if hole >= 0 else "the mark of a hole,"
            raise ValueError(
                f"`{name}` must be tokens without {what} {hole}: give the whole canvas, with what is to be filled in,"
                " as `input_ids` (`lsd-sample --infill`)."
            )
        if bad.numel():
            holes = f", or {hole} for a hole" if holes_allowed else ""
            raise ValueError(f"`{name}` must be token ids in [0, {most}]{holes}, got {int(bad[0])}.")
        return ids

    def _check_length(self, length: int) -> int:
        if length > self.denoiser.length:
            raise ValueError(f"`length` must be at most {self.denoiser.length}, the denoiser's, got {length}.")
        return length


def _equally_many(*ends: Any) -> list[list[Any]]:
    """The beginning and end of each canvas, from one text for all or a list of texts."""
    lists = [isinstance(end, list | tuple) and end and all(isinstance(text, str) for text in end) for end in ends]
    numbers_of_texts = {len(end) for end, is_list in zip(ends, lists, strict=True) if is_list}
    if len(numbers_of_texts) > 1:
        raise ValueError(f"`prefix` and `suffix` must have equally many texts, got {sorted(numbers_of_texts)}.")
    num = max(numbers_of_texts, default=1)
    return [list(end) if is_list else [end] * num for end, is_list in zip(ends, lists, strict=True)]


def _positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, got {value!r}.")
    return int(value)


def _check_tensor_inputs(names: Sequence[str] | None, known: list[str]) -> list[str]:
    names = names or []
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"`callback_on_step_end_tensor_inputs` must be among {known}, got {unknown}.")
    return list(names)


# `diffusers.DiffusionPipeline.from_pretrained` looks for a saved pipeline's class in diffusers' own namespace only
if not hasattr(diffusers, MaskedDiffusionPipeline.__name__):
    setattr(diffusers, MaskedDiffusionPipeline.__name__, MaskedDiffusionPipeline)
