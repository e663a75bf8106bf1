"""Schedulers that watch a pipeline: the trainer never calls a network, it reads what passes through `step`.

All noise of a generation is fixed per position by its generator, so a run is replayed exactly from its seed: a second
run knows which token each position will end with, and when. A run may have several canvases, one after another
(LLaDA2Pipeline has one for each block). Nothing of size batch x length x vocabulary is kept between steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

# diffusers reloads a scheduler only if `SchedulerMixin` is in the namespace of its module
from diffusers.schedulers.scheduling_utils import SchedulerMixin  # noqa: F401

from ..sampling.canvas import Canvas, DrawOptions, StepInput
from ..sampling.learned_numbers import LearnedSampler, LearnedSteps
from ..sampling.left_out import is_predicted, log_probability_bounds, never_predicted
from ..sampling.pipeline_runs import LABELS, PER_SEQUENCE, PipelineRuns
from ..sampling.schedules import grid_from_counts
from ..scheduling_lsd import LSDScheduler
from .cross_entropy import cross_entropy
from .shared_options import SharedOptions
from .teacher_plan import TeacherPlan


GivenT = TypeVar("GivenT")


class UnequalLengths(ValueError):
    """The sequences of a pipeline differ in length, so they cannot be compared."""


def check_num_canvases(here: int, first: int) -> None:
    """Raises `UnequalLengths` if a batch has another number of canvases than the first."""
    if here != first:
        raise UnequalLengths(
            f"Batches differ in their number of canvases, {first} and {here} (a pipeline pads prompts to the longest,"
            " and they fill some of its blocks): use prompts of equal length in tokens, a `batch_size` of all"
            " sequences, or, in LLaDA2Pipeline, a `gen_length` of one more than a multiple of `block_length`, which"
            " takes as many blocks after any prompt."
        )


def fits(final_BL: torch.Tensor, x: StepInput) -> bool:
    """Whether a canvas may end like this: with a token where it is masked, elsewhere with what it holds."""
    return bool(torch.where(x.masked_BL, final_BL != x.mask_token_id, final_BL == x.sample_BL).all())


class Recorder(LSDScheduler):
    """Watches one run of a pipeline: counts its network calls, and tells its canvases apart.

    A run never stops early at an end-of-sequence token, because samplers are measured on whole canvases.
    """

    def begin(self, num_inference_steps: int) -> None:
        """Begins a new run, which must have this number of steps."""
        self.asked, self.calls, self.canvas_index = num_inference_steps, 0, -1
        self._seen: Canvas | None = None

    def set_timesteps(self, num_inference_steps: int, *args: Any, **kwargs: Any) -> None:
        if num_inference_steps != self.asked:
            raise ValueError(
                f"The pipeline was called for {self.asked} steps and makes {num_inference_steps}: its other arguments"
                " limit their number (LLaDA2Pipeline: `gen_length`, which must not be below `block_length` here)."
            )
        super().set_timesteps(num_inference_steps, *args, **kwargs)

    def advance(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
        if x.draws != DrawOptions():
            raise ValueError(
                f"Distil at `temperature` 1, without `top_p` and `top_k`, got {x.draws}: the sampler takes any later."
            )
        self.calls += 1
        if x.canvas is not self._seen:
            if x.k:
                raise ValueError(
                    f"This pipeline call begins at step {x.k} of {self.asked}: distil on one that begins with masks."
                    " (With a `cache`, models whose logits are shifted make a first step of their own: leave it out.)"
                )
            self._seen, self.canvas_index = x.canvas, self.canvas_index + 1
        return self.record(x)

    def record(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
        """The next canvas and the probabilities of what was revealed in it, as `advance`."""
        return super().advance(x)

    def _of_canvas(self, given: Sequence[GivenT]) -> GivenT:
        """The entry for the present canvas, from a list with one for each canvas of the run.

        Raises:
            UnequalLengths: if the run has more canvases.
        """
        check_num_canvases(max(self.canvas_index + 1, len(given)), len(given))
        return given[self.canvas_index]

    def check_eos_finished(self, *args: Any, finished: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return finished


class SampleRecorder(Recorder):
    """Keeps how each canvas of a run ended."""

    def begin(self, num_inference_steps: int) -> None:
        super().begin(num_inference_steps)
        self.ends: list[torch.Tensor] = []

    def record(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
        canvas_BL, probability_BL = super().record(x)
        self.ends[self.canvas_index :] = [canvas_BL]
        return canvas_BL, probability_BL

    @property
    def sequences(self) -> torch.Tensor:
        """The canvases of the run, one after another, `(B, L)`, on the CPU."""
        return torch.cat([end.cpu() for end in self.ends], dim=1)


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
    """A plain sampler that keeps the start and the end of each canvas, and its state before chosen steps.

    With `watches_tokens`, it also finds the tokens that are never predicted where all is masked: `never_predicted`.
    """

    keep: frozenset[int] = frozenset()
    watches_tokens: bool = False

    def begin(self, num_inference_steps: int) -> None:
        super().begin(num_inference_steps)
        self.canvases: list[RecordedCanvas] = []
        self.never_predicted: list[int] = []

    def record(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
        if len(self.canvases) == self.canvas_index:
            self.canvases.append(RecordedCanvas(x.canvas.masked_BL, x.sample_BL))
            self.mask_token_id, self.canvas_shape = x.mask_token_id, x.canvas.shape
            self.num_columns = x.logits_BLV.shape[-1]
            if self.watches_tokens and self.canvas_index == 0:
                row_R, position_R = x.masked_BL.nonzero(as_tuple=True)
                bounds_V = log_probability_bounds(x.logits_BLV, row_R, position_R, x.mask_token_id)
                self.never_predicted = never_predicted(bounds_V)
        recorded = self.canvases[-1]
        if x.k in self.keep:
            recorded.states[x.k] = x.sample_BL.clone()
        recorded.final_BL, probability_BL = super().record(x)
        return recorded.final_BL, probability_BL


class StepErrorRecorder(Recorder):
    """Replays a teacher's run by states; adds up `-log p(final token)` of every masked position by its rank.

    The ranks and states of a canvas row are scaled as if it had `num_masked` masked positions.
    Tokens in `never_predicted` do not count.
    """

    never_predicted: Sequence[int] = ()

    def replay(self, states: torch.Tensor, canvases: Sequence[Any], num_masked: int) -> None:
        """Makes the next run visit the states with these numbers of known tokens, on each canvas.

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

    def record(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
        L, rank_BL = self.num_masked, x.canvas.rank_BL
        final_BL = self._of_canvas(self.canvases).final_BL.to(rank_BL.device)
        if final_BL.shape != rank_BL.shape:
            shapes = f"{tuple(rank_BL.shape)}, and its sequences are {tuple(final_BL.shape)}"
            raise ValueError(f"A canvas of this pipeline call has shape {shapes}: give data of whole canvases.")
        if x.k == 0 and not fits(final_BL, x):
            raise ValueError(
                "`data` do not hold what the canvases of this pipeline call give (a pipeline pads prompts to the"
                " longest of a batch): use prompts of equal length in tokens."
            )
        row_R, position_R = (x.masked_BL & is_predicted(final_BL, self.never_predicted)).nonzero(as_tuple=True)
        masked_B = x.canvas.masked_BL.sum(1)
        rank_R = rank_BL[row_R, position_R] * L // masked_B[row_R]
        nats_R = cross_entropy(x.logits_BLV, row_R, position_R, final_BL[row_R, position_R], x.mask_token_id)
        self.nats_GL[x.k] += torch.bincount(rank_R, nats_R, minlength=L).cpu()
        self.seen_GL[x.k] += torch.bincount(rank_R, minlength=L).cpu()
        known_B = (self.counts[x.k + 1] * masked_B + L - 1) // L
        reveal_BL = x.masked_BL & (rank_BL < known_B[:, None])
        return torch.where(reveal_BL, final_BL, x.sample_BL), reveal_BL.float()


def teacher_plan(
    runs: PipelineRuns, base: LSDScheduler, config: SharedOptions, with_data: bool = False
) -> TeacherPlan:
    """Learns from a one-step run of the first batch what the pipeline asks of a sampler.

    Raises:
        ValueError: if it leaves no masked position to the sampler.
    """
    teacher = TeacherRecorder.from_config(base.config)
    teacher.watches_tokens = with_data
    runs.run(teacher, 1, range(min(config.batch_size, config.most_sequences)))
    masked = [int(number) for canvas in teacher.canvases for number in canvas.masked_BL.sum(1).aminmax()]
    most = max(masked, default=0)
    if most == 0:
        raise ValueError("This pipeline call leaves no masked position to the sampler: there is nothing to distil.")
    num_steps = config.teacher_steps_for(most, runs.time_conditioned)
    row_length = teacher.canvas_shape[-1] if len(teacher.canvas_shape) > 1 else 0
    counted = most, len(teacher.canvases), num_steps
    seen = teacher.mask_token_id, teacher.num_columns, row_length, teacher.never_predicted
    return TeacherPlan(*counted, *seen, is_whole=are_whole(runs, teacher.canvases), fewest_masked=min(masked))


def are_whole(runs: PipelineRuns, canvases: Sequence[RecordedCanvas]) -> bool:
    """Whether it is known from the canvases of a first batch that those of all sequences are single and all masked: an
    argument with an entry for each sequence may give tokens of others.
    """
    given = {name: runs.call_kwargs.get(name) for name in PER_SEQUENCE if name != LABELS}
    alike = all(value is None or isinstance(value, str) for value in given.values())
    return alike and len(canvases) == 1 and bool(canvases[0].masked_BL.all())
