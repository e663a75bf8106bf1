"""Schedulers that watch a pipeline: the trainer never calls a network, it reads what passes through `step`.

All noise of a generation is fixed per position by its generator, so a run is replayed exactly from its seed: a second
run knows which token each position will end with, and when. A run may have several canvases, one after another
(LLaDA2Pipeline has one for each block). Nothing of size batch x length x vocabulary is kept between steps.
"""

import inspect
import numbers
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from diffusers import DiffusionPipeline

# diffusers reloads a scheduler only if `SchedulerMixin` is in the namespace of its module
from diffusers.schedulers.scheduling_utils import SchedulerMixin  # noqa: F401

from ..canvas import Canvas, DrawOptions, StepInput
from ..checkpoint import LearnedSampler, LearnedSteps
from ..left_out import is_predicted, log_probability_bounds, never_predicted
from ..modes import eval_mode
from ..out_of_memory import BatchTooLarge, is_out_of_memory
from ..random import row_generators
from ..schedules import grid_from_counts
from ..scheduling_lsd import LSDScheduler
from ..validation import did_you_mean
from .config import DistillConfig
from .cross_entropy import cross_entropy


GivenT = TypeVar("GivenT")

LABELS = "class_labels"
PER_SEQUENCE = (
    "prefix",
    "suffix",
    "prompt",
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
"""Arguments of pipelines that hold something for each sequence: a list or the rows of a tensor, or one for all."""

NUMBERS = ("num_samples", "batch_size", "num_images_per_prompt")
"""Names that pipelines have for how many sequences to make."""


class UnequalLengths(ValueError):
    """The sequences of a pipeline differ in length, so they cannot be compared."""


def check_num_canvases(here: int, first: int) -> None:
    """Raises `UnequalLengths` if a batch has not as many canvases as the first."""
    if here != first:
        raise UnequalLengths(
            f"Batches differ in their number of canvases, {first} and {here} (a pipeline pads prompts to the longest,"
            " and they fill some of its blocks): use prompts of equal length in tokens, a `batch_size` of all"
            " sequences, or, in LLaDA2Pipeline, a `gen_length` of one more than a multiple of `block_length`, which"
            " takes as many blocks after any prompt."
        )


class PipelineRuns:
    """Runs a pipeline with one scheduler after another, each sequence with noise of its own seed.

    Args:
        pipeline (`DiffusionPipeline`): of a masked diffusion model.
        seed (`int`): sequence i gets a generator seeded from `(seed, i)`, whatever the batch size.
        call_kwargs: passed to every call of the pipeline (prompt, guidance, ...). Of an argument in `PER_SEQUENCE`
            that is a list, or a tensor with a row for each, sequence i gets entry `i % len`; of class labels, that of
            a list of numbers or a 1-D tensor too.

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
        """Whether the network sees the time; where the pipeline does not say, it does not."""
        return getattr(getattr(self.pipeline, "denoiser", None), "time_conditioned", False)

    def generators(self, sequences: Sequence[int]) -> list[torch.Generator]:
        """Fresh generators for these sequences."""
        return row_generators(self.seed, sequences)

    def arguments(self, sequences: Sequence[int]) -> dict[str, Any]:
        """What the pipeline is called with to generate these sequences in one batch.

        Raises:
            ValueError: if its call has no argument that would say how many.
        """
        kwargs = dict(self.call_kwargs)
        temperature = self._accepted.get("temperature")
        # LLaDA2Pipeline takes the most likely token unless told otherwise
        if temperature is not None and isinstance(temperature.default, numbers.Real):
            kwargs.setdefault("temperature", 1.0)
        given = {name: kwargs[name] for name in PER_SEQUENCE if kwargs.get(name) is not None}
        listed = [name for name, value in given.items() if _is_list(name, value)]
        # diffusers' own pipelines take lists beside theirs
        names = NUMBERS[:2] if given else NUMBERS
        repeats = next((name for name in names if name in self._accepted), None)
        if repeats is not None and listed in ([], [LABELS]):  # which say what to make, and not how many
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

    def run(self, scheduler: "Recorder", num_inference_steps: int, sequences: Sequence[int]) -> None:
        """One generation of these sequences under `scheduler`.

        Raises:
            BatchTooLarge: if memory runs out.
        """
        scheduler.begin(num_inference_steps)
        kwargs = {**self.arguments(sequences), "num_inference_steps": num_inference_steps}
        with scheduler_in_place(self.pipeline, scheduler), torch.no_grad():
            try:
                output = self.pipeline(generator=self.generators(sequences), **kwargs)  # type: ignore[operator]
            except (RuntimeError, MemoryError, OSError) as error:
                if not is_out_of_memory(error):
                    raise
                raise BatchTooLarge(len(sequences)) from error
        # a pipeline that calls the network less often than the scheduler says so
        made = getattr(output, "network_calls", None)
        self.network_calls += scheduler.calls if made is None else made


def check_call(pipeline: type[DiffusionPipeline], call_kwargs: Mapping[str, Any]) -> None:
    """Whether a kind of pipeline can be called with these arguments.

    Raises:
        ValueError: if not, with the nearest name; if they are the trainer's to give; or if it takes no `generator`.
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
            raise ValueError(f"`{name}` is given to the pipeline by the training: leave it out.")
        if name not in names and not takes_any:
            hint = did_you_mean(name, names)
            raise ValueError(f"`{name}` is not an argument of {pipeline.__name__}, which has {names}.{hint}")


def _is_list(name: str, value: Any) -> bool:
    """Whether an argument has an entry for each sequence. A list of numbers is one canvas, but many labels."""
    if isinstance(value, torch.Tensor):
        return value.ndim > (0 if name == LABELS else 1)
    if not isinstance(value, list) or not value:
        return False
    return name == LABELS or not isinstance(value[0], numbers.Integral)


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
def scheduler_in_place(pipeline: DiffusionPipeline, scheduler: LSDScheduler) -> Iterator[None]:
    """Puts a scheduler into the pipeline, its networks into eval mode, silences its bar; and puts all back.

    What is no diffusers pipeline may lack `components` and `set_progress_bar_config`.
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


class Recorder(LSDScheduler):
    """Watches one run of a pipeline: counts its network calls, tells its canvases apart.

    A run never stops early at an end-of-sequence token: what a sampler is worth is measured on whole canvases.
    """

    def begin(self, num_inference_steps: int) -> None:
        """A new run, which must be of so many steps."""
        self.asked, self.calls, self.canvas = num_inference_steps, 0, -1
        self._seen: Canvas | None = None

    def set_timesteps(self, num_inference_steps: int, *args: Any, **kwargs: Any) -> None:
        if num_inference_steps != self.asked:
            raise ValueError(
                f"The pipeline was called for {self.asked} steps and makes {num_inference_steps}: its other arguments"
                " bound their number (LLaDA2Pipeline: `gen_length`, which must not be below `block_length` here)."
            )
        super().set_timesteps(num_inference_steps, *args, **kwargs)

    def _advance(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
        if x.draws != DrawOptions():
            raise ValueError(
                f"Distil at `temperature` 1, without `top_p` and `top_k`, got {x.draws}: samplers take any later."
            )
        self.calls += 1
        if x.noise is not self._seen:
            if x.k:
                raise ValueError(
                    f"This pipeline call begins at step {x.k} of {self.asked}: distil on one that begins with masks."
                )
            self._seen, self.canvas = x.noise, self.canvas + 1
        return self._record(x)

    def _record(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
        """The next canvas and the probabilities of what was revealed in it, as `_advance`."""
        return super()._advance(x)

    def _of_canvas(self, given: Sequence[GivenT]) -> GivenT:
        """Of what was given for each canvas of the run, that of the present one.

        Raises:
            UnequalLengths: if the run has more canvases.
        """
        check_num_canvases(max(self.canvas + 1, len(given)), len(given))
        return given[self.canvas]

    def check_eos_finished(self, *args: Any, finished: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return finished


@dataclass
class RecordedCanvas:
    """What is kept of one canvas of a teacher's run.

    Args:
        masked_BL (`torch.BoolTensor` of shape `(batch_size, seq_len)`): what was masked at the start.
        final_BL (`torch.LongTensor` of that shape): how it ended.
        states (`dict[int, torch.LongTensor]`): the canvas before chosen steps.
    """

    masked_BL: torch.Tensor
    final_BL: torch.Tensor
    states: dict[int, torch.Tensor] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (self.masked_BL, self.final_BL, *self.states.values()))


class TeacherRecorder(Recorder):
    """A plain sampler that keeps of each canvas the start, the end, and the state before chosen steps.

    With `watches_tokens`, also which tokens are never predicted where all is masked: `never_predicted`.
    """

    keep: frozenset[int] = frozenset()
    watches_tokens: bool = False

    def begin(self, num_inference_steps: int) -> None:
        super().begin(num_inference_steps)
        self.canvases: list[RecordedCanvas] = []
        self.never_predicted: list[int] = []

    def _record(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
        if len(self.canvases) == self.canvas:
            self.canvases.append(RecordedCanvas(x.noise.masked_BL, x.sample_BL))
            self.mask_token_id, self.canvas_shape = x.mask_token_id, x.noise.shape
            self.num_columns = x.logits_BLV.shape[-1]
            if self.watches_tokens and self.canvas == 0:
                row_R, position_R = x.masked_BL.nonzero(as_tuple=True)
                bounds_V = log_probability_bounds(x.logits_BLV, row_R, position_R, x.mask_token_id)
                self.never_predicted = never_predicted(bounds_V)
        recorded = self.canvases[-1]
        if x.k in self.keep:
            recorded.states[x.k] = x.sample_BL.clone()
        recorded.final_BL, probability_BL = super()._record(x)
        return recorded.final_BL, probability_BL


class StepErrorRecorder(Recorder):
    """Replays a teacher's run by states; adds up `-log p(final token)` of every masked position by its rank.

    A canvas row with n masked positions counts as one of `num_masked`: ranks and states are scaled to that number.
    Tokens in `never_predicted` do not count.
    """

    never_predicted: Sequence[int] = ()

    def replay(self, states: torch.Tensor, canvases: Sequence[Any], num_masked: int) -> None:
        """The next run visits the states with so many known tokens, on each of these canvases.

        Args:
            states (`torch.LongTensor` of shape `(num_states,)`): numbers of known tokens, increasing from 0.
            canvases (`list` of [`TeacherPath`] or [`RecordedCanvas`]): how each ends.
            num_masked (`int`): the number of masked positions at the start that `states` are meant for.
        """
        counts = [*states.tolist(), num_masked]
        steps = LearnedSteps.plain(grid_from_counts(counts, self.noise, self.config.sampling_eps))
        self.set_learned_sampler(LearnedSampler({len(states): steps}))
        self.counts, self.canvases, self.num_masked = counts, canvases, num_masked
        self.nats_GL = torch.zeros(len(states), num_masked, dtype=torch.float64)
        self.seen_GL = torch.zeros_like(self.nats_GL)

    def _record(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
        L, rank_BL = self.num_masked, x.noise.rank_BL
        final_BL = self._of_canvas(self.canvases).final_BL.to(rank_BL.device)
        if final_BL.shape != rank_BL.shape:
            shapes = f"{tuple(rank_BL.shape)}, and its sequences are {tuple(final_BL.shape)}"
            raise ValueError(f"A canvas of this pipeline call has shape {shapes}: give data of whole canvases.")
        row_R, position_R = (x.masked_BL & is_predicted(final_BL, self.never_predicted)).nonzero(as_tuple=True)
        masked_B = x.noise.masked_BL.sum(1)
        rank_R = rank_BL[row_R, position_R] * L // masked_B[row_R]
        nats_R = cross_entropy(x.logits_BLV, row_R, position_R, final_BL[row_R, position_R], x.mask_token_id)
        self.nats_GL[x.k] += torch.bincount(rank_R, nats_R, minlength=L).cpu()
        self.seen_GL[x.k] += torch.bincount(rank_R, minlength=L).cpu()
        known_B = (self.counts[x.k + 1] * masked_B + L - 1) // L
        reveal_BL = x.masked_BL & (rank_BL < known_B[:, None])
        return torch.where(reveal_BL, final_BL, x.sample_BL), reveal_BL.float()


@dataclass(frozen=True)
class TeacherPlan:
    """What one call of the pipeline asks of a sampler.

    Args:
        num_masked (`int`): masked positions at the start of a canvas, in the row with most of them.
        num_canvases (`int`): canvases in one run.
        num_steps (`int`): the teacher's steps on each.
        mask_token_id (`int`): the mask.
        num_columns (`int`, *optional*): of the network's output.
        row_length (`int`): width of a canvas that is an image, else 0.
        never_predicted (sequence of `int`): tokens that data may hold, and that the network never predicts.
    """

    num_masked: int
    num_canvases: int
    num_steps: int
    mask_token_id: int
    num_columns: int | None = None
    row_length: int = 0
    never_predicted: Sequence[int] = ()

    @property
    def is_image(self) -> bool:
        """Whether a canvas has height and width."""
        return self.row_length > 0


def teacher_plan(
    runs: PipelineRuns, base: LSDScheduler, config: DistillConfig, with_data: bool = False
) -> TeacherPlan:
    """Learns from a one-step run of the first batch what the pipeline asks of a sampler.

    Raises:
        ValueError: if it leaves no masked position to the sampler.
    """
    teacher = TeacherRecorder.from_config(base.config)
    teacher.watches_tokens = with_data
    runs.run(teacher, 1, range(min(config.batch_size, config.resolved_num_sequences)))
    most = max((int(canvas.masked_BL.sum(1).max()) for canvas in teacher.canvases), default=0)
    if most == 0:
        raise ValueError("This pipeline call leaves no masked position to the sampler: there is nothing to distil.")
    num_steps = config.teacher_steps_for(most, runs.time_conditioned)
    row_length = teacher.canvas_shape[-1] if len(teacher.canvas_shape) > 1 else 0
    counted = most, len(teacher.canvases), num_steps
    return TeacherPlan(*counted, teacher.mask_token_id, teacher.num_columns, row_length, teacher.never_predicted)
