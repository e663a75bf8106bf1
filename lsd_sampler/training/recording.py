"""Schedulers that watch a pipeline: the trainer never calls a network, it reads what passes through `step`.

All noise of a generation is fixed per position by its generator, so a run is replayed exactly from its seed: a second
run knows which token each position will end with, and when. Nothing of size batch x length x vocabulary is kept
between steps.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline

# diffusers reloads a scheduler only if `SchedulerMixin` is in the namespace of its module
from diffusers.schedulers.scheduling_utils import SchedulerMixin  # noqa: F401

from ..canvas import StepInput
from ..checkpoint import LearnedSampler, LearnedSteps
from ..random import check_row_maximum, gather_rows, rows_per_chunk
from ..schedules import grid_from_counts
from ..scheduling_lsd import LSDScheduler
from .config import DistillConfig


MAX_NATS = 100.0
"""A final token that a context deems impossible costs this much."""


class PipelineRuns:
    """Runs a pipeline with one scheduler after another, each sequence with noise of its own seed.

    Args:
        pipeline (`DiffusionPipeline`): of a masked diffusion model.
        seed (`int`): sequence i gets a generator seeded from `(seed, i)`, whatever the batch size.
        call_kwargs: passed to every call of the pipeline (prompt, guidance, ...).
    """

    def __init__(self, pipeline: DiffusionPipeline, seed: int, call_kwargs: dict[str, Any]):
        self.pipeline, self.seed, self.call_kwargs = pipeline, seed, call_kwargs
        self.network_calls = 0
        accepted = inspect.signature(pipeline.__call__).parameters
        self._fixed = {name: value for name, value in (("output_type", "ids"),) if name in accepted}
        self._takes_num_samples = "num_samples" in accepted

    @property
    def time_conditioned(self) -> bool:
        """Whether the network sees the time; assumed where the pipeline does not say."""
        return getattr(getattr(self.pipeline, "denoiser", None), "time_conditioned", True)

    def generators(self, first: int, num: int) -> list[torch.Generator]:
        """Fresh generators for sequences `first, ..., first + num - 1`."""
        # hashed to 32 bits: torch's CPU generator ignores the upper half of its seed
        sequences = [np.random.SeedSequence(self.seed, spawn_key=(i,)) for i in range(first, first + num)]
        return [torch.Generator().manual_seed(int(sequence.generate_state(1)[0])) for sequence in sequences]

    def run(self, scheduler: LSDScheduler, num_inference_steps: int, generators: list[torch.Generator]) -> None:
        """One generation of `len(generators)` sequences under `scheduler`."""
        kwargs = {**self._fixed, **self.call_kwargs}
        if self._takes_num_samples:
            kwargs["num_samples"] = len(generators)
        with scheduler_in_place(self.pipeline, scheduler), torch.no_grad():
            self.pipeline(num_inference_steps=num_inference_steps, generator=generators, **kwargs)  # type: ignore[operator]
        self.network_calls += num_inference_steps


@contextmanager
def scheduler_in_place(pipeline: DiffusionPipeline, scheduler: LSDScheduler) -> Iterator[None]:
    """Puts a scheduler into the pipeline, silences its progress bar, and puts the old ones back."""
    before, bar = pipeline.scheduler, dict(getattr(pipeline, "_progress_bar_config", {}))
    pipeline.scheduler = scheduler
    pipeline.set_progress_bar_config(disable=True)
    try:
        yield
    finally:
        pipeline.scheduler = before
        pipeline.set_progress_bar_config(**bar)


class TeacherRecorder(LSDScheduler):
    """A plain sampler that keeps the canvas before chosen steps, the order of revealing, and the final tokens."""

    keep: frozenset[int] = frozenset()

    def watch(self, keep: frozenset[int]) -> None:
        """Keeps the canvases before the steps of these indices."""
        self.keep = keep
        self.states: dict[int, torch.Tensor] = {}

    def _advance(self, x: StepInput) -> torch.Tensor:
        if x.temperature != 1:
            raise ValueError(f"Distil at `temperature` 1, got {x.temperature}; samplers take any temperature later.")
        if x.k in self.keep:
            self.states[x.k] = x.sample_BL.clone()
        self.masked_BL = x.noise.masked_BL
        self.final_BL = super()._advance(x)
        return self.final_BL


class StepErrorRecorder(LSDScheduler):
    """Replays a teacher's path by states; adds up `-log p(final token)` of every masked position by its rank."""

    def replay(self, states: torch.Tensor, final_BL: torch.Tensor, num_masked: int) -> None:
        """The next generation visits the canvases with so many known tokens, and ends with `final_BL`.

        Args:
            states (`torch.LongTensor` of shape `(num_states,)`): numbers of known tokens, increasing from 0.
            final_BL (`torch.LongTensor` of shape `(batch_size, seq_len)`): the teacher's final tokens.
            num_masked (`int`): how many positions of each row are masked at the start.
        """
        counts = [*states.tolist(), num_masked]
        steps = LearnedSteps.plain(grid_from_counts(counts, self.noise, self.config.sampling_eps))
        self.set_learned_sampler(LearnedSampler({len(states): steps}))
        self.counts, self.replayed_BL = counts, final_BL
        self.nats_GL = torch.zeros(len(states), num_masked, dtype=torch.float64, device=final_BL.device)
        self.seen_GL = torch.zeros_like(self.nats_GL)

    def _advance(self, x: StepInput) -> torch.Tensor:
        row_R, position_R = x.masked_BL.nonzero(as_tuple=True)
        rank_R, final_R = x.noise.rank_BL[row_R, position_R], self.replayed_BL[row_R, position_R]
        nats_R = cross_entropy(x.logits_BLV, row_R, position_R, final_R, self.config.mask_token_id)
        self.nats_GL[x.k] += torch.bincount(rank_R, nats_R, minlength=self.nats_GL.shape[1])
        self.seen_GL[x.k] += torch.bincount(rank_R, minlength=self.nats_GL.shape[1])
        reveal_BL = x.masked_BL & (x.noise.rank_BL < self.counts[x.k + 1])
        return torch.where(reveal_BL, self.replayed_BL, x.sample_BL)


def teacher_plan(runs: PipelineRuns, teacher: TeacherRecorder, config: DistillConfig) -> tuple[int, int]:
    """How many positions of a row the pipeline leaves to the sampler, seen in a one-step run; and the teacher's steps.

    Raises:
        ValueError: if rows start with unequally many masked positions, or none.
    """
    teacher.watch(frozenset())
    runs.run(teacher, 1, runs.generators(0, min(config.batch_size, config.num_sequences)))
    masked_B = teacher.masked_BL.sum(1)
    low, high = int(masked_B.min()), int(masked_B.max())
    if low != high or low == 0:
        raise ValueError(
            "Distillation needs canvases with equally many masked positions in each row; this pipeline call starts"
            f" with {low} to {high}."
        )
    return low, config.teacher_steps_for(low, runs.time_conditioned)


def cross_entropy(
    logits_BLV: torch.Tensor,
    row_R: torch.Tensor,
    position_R: torch.Tensor,
    token_R: torch.Tensor,
    excluded: int | None,
) -> torch.Tensor:
    """`-log softmax(logits)[token]` of the chosen rows in nats, at most `MAX_NATS`. float64 of shape `(R,)`."""
    nats = []
    chunk = rows_per_chunk(logits_BLV.shape[-1], logits_BLV.device)
    for row, position, token in zip(row_R.split(chunk), position_R.split(chunk), token_R.split(chunk), strict=True):
        x_RV = gather_rows(logits_BLV, row, position, excluded)
        check_row_maximum(x_RV.amax(-1))
        nats.append((x_RV.logsumexp(-1) - x_RV.gather(1, token[:, None])[:, 0]).double().clamp(max=MAX_NATS))
    return torch.cat(nats) if nats else row_R.double()
