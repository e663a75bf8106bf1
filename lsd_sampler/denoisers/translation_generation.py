"""Translations with any scheduler of this library: our own on the inside of each canvas, DNDM's on whole canvases.

Shape suffixes: B sources, R canvases (several candidates for each source), N columns, V vocabulary.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..sampling.draws import Generators
from ..sampling.logit_rows import DeferredLogits, ModelOutput
from ..sampling.scheduling_dndm import DNDMScheduler
from ..sampling.transition_times import NO_TIME
from ..scheduling_lsd import LSDScheduler
from .piece_tokenizer import BOS, EOS, PAD, UNK
from .prediction import BasePredictor
from .translation import EncodedSource, TranslationDenoiser
from .translation_canvases import (
    LengthBeam,
    best_candidates,
    candidate_scores,
    first_canvases,
    framed,
    longest_canvas,
    padded_sources,
)


AfterStep = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, bool]]
"""Gets the time and the canvases after a step; returns the canvases to go on with, and whether to go on."""


@dataclass
class Translations:
    """What a translation ended with.

    Args:
        canvases (`torch.LongTensor` of shape `(num_rows, num_columns)`): the texts with `<s>`, `</s>` and padding.
        scores (`torch.Tensor` of shape `(num_rows,)`): mean natural log-probability of their tokens.
        network_calls (`int`): calls of the decoder.
        sequence_calls (`torch.LongTensor` of shape `(num_rows,)`): those that each row was part of.
    """

    canvases: torch.Tensor
    scores: torch.Tensor
    network_calls: int
    sequence_calls: torch.Tensor

    def rows(self, row_R: torch.Tensor) -> "Translations":
        """These rows."""
        parts = (self.canvases[row_R], self.scores[row_R], self.network_calls, self.sequence_calls[row_R.cpu()])
        return Translations(*parts)


class TranslationRun:
    """One call of a pipeline.

    Args:
        denoiser ([`TranslationDenoiser`]): the model.
        scheduler: an `LSDScheduler`, or a [`DNDMScheduler`].
        sources (`list` of token ids): with `<s>` and `</s>`.
        beam ([`LengthBeam`]): the candidates for each.
        num_columns (`int`, *optional*): columns of the canvases; default: as many as the longest has.
        generator: one, or one for each source.
        device (`torch.device`): where the network runs.

    Raises:
        ValueError: if the scheduler does not fit the model.
    """

    def __init__(
        self,
        denoiser: TranslationDenoiser,
        scheduler: Any,
        sources: Sequence[Sequence[int]],
        beam: LengthBeam,
        num_columns: int | None,
        generator: Generators,
        device: torch.device,
    ):
        if not isinstance(scheduler, LSDScheduler | DNDMScheduler):
            raise ValueError(
                f"A translation needs an `LSDScheduler` or a `DNDMScheduler`, got {type(scheduler).__name__}."
            )
        self.denoiser, self.scheduler, self.beam, self.device = denoiser, scheduler, beam, device
        self.generator, self.num_sources, self.asked_columns = generator, len(sources), num_columns
        self.num_rows = len(sources) * beam.candidates
        self.source = self._encode(sources)
        self.calls_R = torch.zeros(self.num_rows, dtype=torch.long)
        self.calls = 0

    def _encode(self, sources: Sequence[Sequence[int]]) -> EncodedSource:
        """Each different source is encoded once; the result has a row for each of `sources`."""
        different = [*dict.fromkeys(map(tuple, sources))]
        tokens = padded_sources(different, self.denoiser.config["left_pad_source"]).to(self.device)
        place = {source: i for i, source in enumerate(different)}
        return self.denoiser.encode(tokens).rows(torch.tensor([place[tuple(source)] for source in sources]))

    def run(self, num_inference_steps: int, after_step: AfterStep, timesteps_kwargs: dict[str, Any],
            step_kwargs: dict[str, Any]) -> Translations:  # fmt: skip
        """All candidates, source by source."""
        beam, most = self.beam, longest_canvas(self.denoiser)
        length_R = beam.around(self.denoiser.predicted_lengths(self.source), most).flatten()
        self.source = self.source.rows(torch.arange(self.num_sources).repeat_interleave(beam.candidates))
        if isinstance(self.scheduler, DNDMScheduler):
            canvas_RN, score_RN = self._dndm(self.scheduler, length_R, num_inference_steps, after_step)
        else:
            canvas_RN, score_RN = self._lsd(length_R, num_inference_steps, after_step, timesteps_kwargs, step_kwargs)
        return Translations(canvas_RN, candidate_scores(score_RN, canvas_RN), self.calls, self.calls_R)

    def best(self, translations: Translations) -> Translations:
        """The best candidate of each source."""
        return translations.rows(best_candidates(translations.scores, self.beam.candidates))

    def _width(self, length_R: torch.Tensor) -> int:
        longest = int(length_R.max())
        if self.asked_columns is None:
            return longest
        most = longest_canvas(self.denoiser)
        if not longest <= self.asked_columns <= most:
            raise ValueError(
                f"`length` must be in [{longest}, {most}] here, from the longest canvas (`<s>` and `</s>` included) to"
                f" what the model takes, got {self.asked_columns}."
            )
        return self.asked_columns

    def _row_generators(self) -> list[torch.Generator] | None:
        """A generator for each row, which depends on that of its source alone."""
        if self.generator is None:
            return None
        per_source = self.beam.candidates
        several = self.generator if isinstance(self.generator, list | tuple) else [self.generator] * self.num_sources
        return [_child(generator) for generator in several for _ in range(per_source)]

    # ---- DNDM ----

    def _dndm(
        self, scheduler: DNDMScheduler, length_R: torch.Tensor, num_steps: int, after_step: AfterStep
    ) -> tuple[torch.Tensor, torch.Tensor]:
        times, canvas_RN = scheduler.take_replayed()
        if canvas_RN is None:
            width = self._width(length_R)
            columns_R = self._columns(length_R, width)
            canvas_RN = first_canvases(self.denoiser, length_R, columns_R, width, self._row_generators())
        else:
            canvas_RN = self._checked_canvas(canvas_RN)
        if times is None:
            times = self._draw_times(scheduler, length_R, canvas_RN.shape[1], num_steps)
        scheduler.set_timesteps(num_steps, device=self.device, transition_times=times)
        for time in scheduler.timesteps:
            logits = self._decode(canvas_RN, time.expand(self.num_rows))
            canvas_RN = scheduler.step(logits, time, canvas_RN, return_dict=False)[0]
            canvas_RN, goes_on = after_step(time, canvas_RN)
            if not goes_on:
                break
        return canvas_RN, scheduler.scores

    def _columns(self, length_R: torch.Tensor, width: int) -> list[int]:
        """For how many columns of each row numbers are drawn: as many as the batch has; with a generator for each
        source, as many as the source would have alone.
        """
        if self.asked_columns is not None or not isinstance(self.generator, list | tuple):
            return [width] * self.num_rows
        longest_B = length_R.view(self.num_sources, -1).amax(1)
        return longest_B.repeat_interleave(self.beam.candidates).tolist()

    def _draw_times(
        self, scheduler: DNDMScheduler, length_R: torch.Tensor, num_columns: int, num_steps: int
    ) -> torch.Tensor:
        """Times that all rows share, `(N,)`; with a generator for each source, times of its own, `(R, N)`."""
        if not isinstance(self.generator, list | tuple):
            return scheduler.draw_transition_times(1, num_columns, num_steps, self.generator)[0]
        columns_B, rows = self._columns(length_R, num_columns)[:: self.beam.candidates], []
        for columns, generator in zip(columns_B, self.generator, strict=True):
            drawn = scheduler.draw_transition_times(1, columns, num_steps, generator)[0]
            rows.append(torch.nn.functional.pad(drawn, (0, num_columns - columns), value=NO_TIME))
        return torch.stack(rows).repeat_interleave(self.beam.candidates, dim=0)

    def _checked_canvas(self, canvas_RN: torch.Tensor) -> torch.Tensor:
        most = self.denoiser.config["target_vocabulary"]
        fits = canvas_RN.ndim == 2 and len(canvas_RN) == self.num_rows and canvas_RN.dtype == torch.int64
        if not fits or not bool(((canvas_RN >= 0) & (canvas_RN < most)).all()):
            raise ValueError(
                f"`first_canvas` must hold int64 ids in [0, {most - 1}], of shape ({self.num_rows}, num_columns), a"
                f" row for each candidate of each source; got {tuple(canvas_RN.shape)}, {canvas_RN.dtype}."
            )
        return canvas_RN.to(self.device)

    def _decode(self, canvas_RN: torch.Tensor, time_R: torch.Tensor) -> torch.Tensor:
        """Logits of the rows that have a time; 0 for the others."""
        at_R = (time_R != NO_TIME).nonzero()[:, 0]
        self.calls += 1
        self.calls_R[at_R.cpu()] += 1
        if len(at_R) == len(time_R):
            return self.denoiser.decode(canvas_RN, time_R, self.source)
        some = self.denoiser.decode(canvas_RN[at_R], time_R[at_R], self.source.rows(at_R))
        return some.new_zeros(len(time_R), *some.shape[1:]).index_copy_(0, at_R, some)

    # ---- our own samplers ----

    def _lsd(
        self, length_R: torch.Tensor, num_steps: int, after_step: AfterStep, timesteps_kwargs: dict[str, Any],
        step_kwargs: dict[str, Any],
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        check_noise(self.denoiser)
        width = self._width(length_R)
        one_group = self.asked_columns is not None or is_watching(self.scheduler)
        groups = [*_groups(length_R, width, one_group, self.scheduler, self._row_generators())]
        for group in groups:
            group.scheduler.set_timesteps(num_steps, **timesteps_kwargs)
        inside = UNK if self.denoiser.mask_token_id is not None else 0
        canvas_RN = framed(length_R, width, inside)
        if self.denoiser.mask_token_id is None:
            for group in groups:
                group.fill_with_noise(canvas_RN)
        predictor = _Predictor(self, groups[0].scheduler)
        score_RN, output = torch.zeros(canvas_RN.shape, device=self.device), None
        for time in groups[0].scheduler.timesteps:
            output = predictor(canvas_RN, time)
            canvas_RN = canvas_RN.clone()
            for group in groups:
                group.step(output, time, canvas_RN, score_RN, step_kwargs)
            canvas_RN, goes_on = after_step(time, canvas_RN)
            if not goes_on:
                break
        if self.denoiser.mask_token_id is None and output is not None:
            for group in groups:
                group.score_tokens(output, canvas_RN, score_RN)
        return canvas_RN, score_RN


class _Predictor(BasePredictor):
    """Calls the decoder for the rows of a run that need a prediction; no special token is among what may be drawn."""

    def __init__(self, run: TranslationRun, scheduler: LSDScheduler):
        denoiser = run.denoiser
        super().__init__(denoiser, scheduler, [BOS, PAD, EOS] if denoiser.mask_token_id is not None else [])
        self.run, self.masks = run, denoiser.mask_token_id is not None
        self._hidden: torch.Tensor | None = None

    def __call__(self, canvas_RN: torch.Tensor, t: torch.Tensor) -> ModelOutput:
        at_R = torch.arange(len(canvas_RN), device=canvas_RN.device)
        if self.skips_complete and self.masks and self._hidden is not None:
            at_R = (canvas_RN == UNK).any(1).nonzero()[:, 0]
        if len(at_R):
            source = self.run.source.rows(at_R)
            given: dict[str, Any] = {"encoder_states": source.states, "encoder_padding": source.padding}
            time_R = t.to(canvas_RN.device).expand(len(at_R))
            some = self.denoiser(canvas_RN[at_R], time_R, return_hidden_states=True, **given)
            self._hidden = some if self._hidden is None else self._hidden.index_copy(0, at_R, some)
            self.run.calls += 1
            self.run.calls_R[at_R.cpu()] += 1
        assert self._hidden is not None
        logits = self.denoiser.deferred_logits(self._hidden)
        if self.masks:
            return logits.edited(self._exclude)
        # multinomial noise has no special tokens: its states are numbered without them
        head = logits.head
        return DeferredLogits(self._hidden, lambda hidden: head(hidden)[..., UNK:], logits.shape[-1] - UNK)


@dataclass
class _Group:
    """Rows whose insides have one length, with a scheduler for them."""

    scheduler: Any
    row_R: torch.Tensor
    inside: slice
    length_R: torch.Tensor
    generator: list[torch.Generator] | None

    def _part(self, output: ModelOutput) -> DeferredLogits:
        """The logits of these rows."""
        assert isinstance(output, DeferredLogits)
        return DeferredLogits(output.hidden_BLD[self.row_R, self.inside], output.head, output.shape[-1])

    def _open(self) -> torch.Tensor:
        """Where the texts are, inside the canvases."""
        column_M = torch.arange(self.inside.start, self.inside.stop, device=self.row_R.device)
        return column_M < self.length_R[:, None] - 1

    def fill_with_noise(self, canvas_RN: torch.Tensor) -> None:
        """Puts random tokens into the canvases."""
        size = len(self.row_R), self.inside.stop - self.inside.start
        noise = self.scheduler.sample_prior(*size, self.generator, canvas_RN.device) + UNK
        canvas_RN[self.row_R, self.inside] = torch.where(self._open(), noise, canvas_RN[self.row_R, self.inside])

    def step(
        self, output: ModelOutput, time: torch.Tensor, canvas_RN: torch.Tensor, score_RN: torch.Tensor,
        step_kwargs: dict[str, Any],
    ) -> None:  # fmt: skip
        """One step of the scheduler, written into canvases and scores."""
        part = self._part(output)
        before_RM, shift = canvas_RN[self.row_R, self.inside], 0 if self.scheduler.rule.has_mask else UNK
        kwargs = step_kwargs | ({} if self.generator is None else {"generator": self.generator})
        out = self.scheduler.step(part, time, (before_RM - shift).clamp(min=0), **kwargs)
        open_RM = self._open()
        after_RM = torch.where(open_RM, out.prev_sample + shift, before_RM)
        canvas_RN[self.row_R, self.inside] = after_RM
        if self.scheduler.rule.has_mask:  # the log-probability with which each token was drawn
            score_RM = torch.where(out.transfer_index, out.sampled_probs.log(), score_RN[self.row_R, self.inside])
            score_RN[self.row_R, self.inside] = score_RM.masked_fill(after_RM == UNK, -torch.inf)

    def score_tokens(self, output: ModelOutput, canvas_RN: torch.Tensor, score_RN: torch.Tensor) -> None:
        """Writes what the last call says of each token that is there, for noise that draws no token for good."""
        part = self._part(output)
        row_R, position_R = self._open().nonzero(as_tuple=True)
        token_R = (canvas_RN[self.row_R, self.inside][row_R, position_R] - UNK).clamp(min=0)
        log_RV = part.rows(row_R, position_R).float().log_softmax(-1)
        score_RN[self.row_R[row_R], self.inside.start + position_R] = log_RV.gather(1, token_R[:, None])[:, 0]


def _groups(
    length_R: torch.Tensor, width: int, one_group: bool, scheduler: Any, generators: list[torch.Generator] | None
) -> Iterator[_Group]:
    """Groups of rows of equal length, each with a copy of the scheduler, so that what is drawn for a row does not
    depend on the lengths of the others; or one group of all.
    """
    sizes = [width] if one_group else sorted(set(length_R.tolist()))
    for i, size in enumerate(sizes):
        row_R = (length_R <= width if one_group else length_R == size).nonzero()[:, 0]
        own = None if generators is None else [generators[row] for row in row_R.tolist()]
        yield _Group(copy.deepcopy(scheduler) if i else scheduler, row_R, slice(1, size - 1), length_R[row_R], own)


def _child(generator: torch.Generator) -> torch.Generator:
    seed = torch.randint(2**31, (1,), generator=generator, device=generator.device)
    return torch.Generator().manual_seed(int(seed))


def is_watching(scheduler: Any) -> bool:
    """Whether a scheduler watches the pipeline, as those of trainers do: no copy of it may make its steps."""
    return isinstance(scheduler, LSDScheduler) and type(scheduler).advance is not LSDScheduler.advance


def beam_of(scheduler: Any, length_beam: int | None, beam_within_length: int | None) -> LengthBeam:
    """The candidates of each source: 5 lengths by default, as in the authors' scripts, or one for a trainer.

    Raises:
        ValueError: if one is no positive integer, or a trainer is to learn from several candidates.
    """
    watched = is_watching(scheduler)
    lengths = (1 if watched else 5) if length_beam is None else length_beam
    beam = LengthBeam(lengths, 1 if beam_within_length is None else beam_within_length)
    if watched and beam.candidates > 1:
        raise ValueError("A sampler is distilled on one candidate for each source: leave `length_beam` out.")
    return beam


def check_noise(denoiser: TranslationDenoiser) -> None:
    """Raises `ValueError` if `LSDScheduler` has no noise such as the model was trained with."""
    config = denoiser.config
    if denoiser.mask_token_id is not None:
        return
    if config["noise_distribution"] != "uniform":
        raise ValueError(
            f"This model was trained with noise of the distribution {config['noise_distribution']!r}, and"
            " `LSDScheduler` has uniform noise only: use `DNDMScheduler(**pipeline.denoiser.dndm_config())`."
        )
    if config["noise_scheduler_type"] == "sqrt":
        raise ValueError(
            "This model was trained under the noise schedule 'sqrt', which `LSDScheduler` does not have: use"
            " `DNDMScheduler(**pipeline.denoiser.dndm_config())`."
        )
