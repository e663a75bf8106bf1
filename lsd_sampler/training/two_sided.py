"""Coefficients of the log-score by a two-sided criterion: the distance of the student's samples from a reference.

Tokens that are revealed together are drawn independently, and a denoiser spreads its mass too widely. Inverse
temperatures above 1 repair part of both errors, most of all in late steps, where much is known. The forward KL along
teacher paths cannot find such temperatures: its optimum is 1 or below. A distance between distributions can: it falls
when unlikely combinations disappear, and rises when variety does.

The distance is a function of two numbers: the logarithms of the coefficient where nothing is known and where all is.
The logarithm is linear in the share of known tokens in between. A quadratic is fitted to the distances at a few such
points, all sampled with the same noise. Its minimum is kept if it beats coefficients of 1 by more than chance, on
other samples and against other sequences of the reference.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import torch
from tqdm.auto import tqdm

from ..learned.interpolation import known_shares
from ..sampling.learned_numbers import LearnedSteps
from ..sampling.pipeline_runs import PipelineRuns
from ..scheduling_lsd import LSDScheduler
from ..support.workers import Workers
from .ngram_cells import CellDistance, has_ngrams
from .progress import Progress
from .recording import SampleRecorder, UnequalLengths


MAX_NFE = 32
"""For more calls, the coefficients learned for the largest number of calls up to this one are used."""
CONFIDENCE = 0.99
ROUNDS = 2
RADIUS = 0.3
"""Radius of a round of points, in units of the logarithm of a coefficient."""
FIRST_SEQUENCE = 2**20
"""Seeds far from those of the sequences that schedules are learned from."""
MIN_REFERENCES = 16


def two_sided(
    runs: PipelineRuns,
    scheduler: LSDScheduler,
    nfe: Sequence[int],
    reference: torch.Tensor,
    *,
    num_sequences: int = 128,
    batch_size: int = 64,
    row_length: int | None = None,
    log: Callable[..., None] = lambda **_: None,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> dict[int, LearnedSteps]:
    """Learns `log_score_coefficients`, with all else as it is.

    It only runs the pipeline, and looks at nothing but token ids. [`two_sided_calls`] says how often it calls the
    network.

    Args:
        runs ([`PipelineRuns`]): runs the pipeline, and counts its network calls.
        scheduler ([`LSDScheduler`]): the sampler; its coefficients of the log-score are replaced.
        nfe: numbers of calls.
        reference (`torch.LongTensor` of shape `(num_references, seq_len)`): real sequences, or the teacher's, as the
            pipeline ends them (canvases of one run one after another, what was given included). More are better, up
            to some thousands; fewer samples suffice. `LEFT_OUT` (-1) stands for a token that does not count.
        num_sequences (`int`): samples at each point; the last comparison takes twice as many.
        batch_size (`int`): sequences in a network call.
        row_length (`int`, *optional*): of a canvas that is an image.
        log (*optional*): called with the keyword arguments of each thing measured.
        progress ([`Progress`], *optional*): keeps each distance as soon as it is known.
        workers ([`Workers`], *optional*): the processes that share the samples; all have the same `reference`.

    Returns:
        for each number of calls the numbers of the sampler.

    Raises:
        ValueError: if `reference` does not hold sequences to compare with, or a number is out of range;
            `UnequalLengths` if samples are longer or shorter than its sequences.
    """
    check_reference(reference)
    reference = reference[has_ngrams(reference, row_length)]
    check_reference(reference)
    if num_sequences < 2 or batch_size < 1:
        raise ValueError(
            f"`num_sequences` must be at least 2 and `batch_size` at least 1, got {num_sequences} and {batch_size}."
        )
    order = torch.randperm(len(reference), generator=torch.Generator().manual_seed(runs.seed))
    guide, fitted, held_out = reference.cpu()[order].tensor_split([len(order) // 2, 3 * len(order) // 4])
    search = _Search(
        runs, scheduler, num_sequences, batch_size, reference.shape[1],
        CellDistance.make(guide, fitted, num_sequences, row_length),
        CellDistance.make(guide, held_out, 2 * num_sequences, row_length),
        progress or Progress(), workers or Workers(),
    )  # fmt: skip
    learned, ends = {}, (0.0, 0.0)
    for M in sorted(set(nfe)):
        steps = scheduler.steps_for(M)
        entry: dict[str, Any] = {"inherited": True}
        if M <= MAX_NFE or not learned:
            ends, entry = search.learn(M)
        learned[M] = replace(steps, log_score_coefficients=coefficients(steps, scheduler, ends))
        values = learned[M].log_score_coefficients.tolist()
        log(event="log_score_coefficients", nfe=M, coefficients=values, **entry, network_calls=runs.network_calls)
    return learned


def two_sided_calls(nfe: Sequence[int], num_canvases: int, num_sequences: int, batch_size: int) -> int:
    """Network calls of [`two_sided`], each on a batch."""
    searched = [M for M in set(nfe) if M <= MAX_NFE] or [min(nfe)]
    each = ROUNDS * len(_hexagon((0.0, 0.0))) * -(-num_sequences // batch_size) + 2 * -(
        -2 * num_sequences // batch_size
    )
    return num_canvases * each * sum(searched)


def check_reference(reference: torch.Tensor) -> None:
    """Raises `ValueError` unless these can be sequences to compare with."""
    if reference.ndim != 2 or reference.dtype != torch.int64 or len(reference) < MIN_REFERENCES:
        raise ValueError(
            f"`reference` must hold token ids, int64 of shape (at least {MIN_REFERENCES}, seq_len), got"
            f" {reference.dtype} of shape {tuple(reference.shape)}."
        )


def coefficients(steps: LearnedSteps, scheduler: LSDScheduler, ends: tuple[float, float]) -> torch.Tensor:
    """The coefficient of each step. Its logarithm is linear in the share of known tokens, from one end to the other.
    float64 of shape `(M,)`.
    """
    known_M = known_shares(steps.timesteps, scheduler.noise)
    return torch.exp(ends[0] + (ends[1] - ends[0]) * known_M)


class _Search:
    """The search for one number of calls after another."""

    def __init__(
        self,
        runs: PipelineRuns,
        scheduler: LSDScheduler,
        num_sequences: int,
        batch_size: int,
        length: int,
        fitted: CellDistance,
        held_out: CellDistance,
        progress: Progress,
        workers: Workers,
    ):
        self.runs, self.scheduler, self.progress, self.workers = runs, scheduler, progress, workers
        self.num_sequences, self.batch_size, self.length = num_sequences, batch_size, length
        self.fitted, self.held_out = fitted, held_out

    def learn(self, M: int) -> tuple[tuple[float, float], dict[str, Any]]:
        """The two ends, and what was measured of them."""
        best, points = (0.0, 0.0), []
        name = f"two_sided-{M}"
        stored = self.progress.load(name) or {}
        values = stored.get("distances", torch.empty(0, dtype=torch.float64)).tolist()
        self.runs.network_calls = int(stored.get("network_calls", self.runs.network_calls))
        with tqdm(total=ROUNDS * 7 + 2, desc=f"coefficients for {M} calls", unit="point", leave=False) as bar:
            for _ in range(ROUNDS):
                centre = best
                for point in _hexagon(centre):
                    points.append(point)
                    if len(points) > len(values):
                        values.append(self.fitted(self.samples(M, point, range(self.num_sequences))))
                        kept = {"distances": torch.tensor(values, dtype=torch.float64)}
                        self.progress.save(name, kept | {"network_calls": torch.tensor(self.runs.network_calls)})
                    bar.update()
                best = lowest(points, values[: len(points)], centre)
            return self._judge(M, best, bar)

    def _judge(self, M: int, ends: tuple[float, float], bar: Any) -> tuple[tuple[float, float], dict[str, Any]]:
        """Whether the ends beat coefficients of 1 on other samples, compared with other reference sequences."""
        name = f"two_sided-{M}-judged"
        stored = self.progress.load(name)
        if stored is None:
            fresh, both = range(self.num_sequences, 3 * self.num_sequences), []
            for point in ((0.0, 0.0), ends):
                both.append(self.samples(M, point, fresh))
                bar.update()
            before, after = map(self.held_out, both)
            change, error = self.held_out.difference(both[1], both[0])
            judged = torch.tensor([before, after, change, error], dtype=torch.float64)
            stored = {"judged": judged, "network_calls": torch.tensor(self.runs.network_calls)}
            self.progress.save(name, stored)
        self.runs.network_calls = int(stored["network_calls"])
        before, after, change, error = stored["judged"].tolist()
        reach = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * error
        is_better = change + reach < 0
        entry = {
            "adopted": is_better, "found": [math.exp(end) for end in ends],
            "distance_before": before, "distance_after": after,
            "change": change, "change_low": change - reach, "change_high": change + reach,
        }  # fmt: skip
        return (ends if is_better else (0.0, 0.0)), entry

    def samples(self, M: int, ends: tuple[float, float], sequences: range) -> torch.Tensor:
        """The final sequences of the student with these coefficients, `(len(sequences), seq_len)`, on the CPU."""
        steps = self.scheduler.steps_for(M)
        steps = replace(steps, log_score_coefficients=coefficients(steps, self.scheduler, ends))
        student = SampleRecorder.from_config(self.scheduler.config)
        student.set_learned_sampler(replace(self.scheduler.learned_sampler, steps={M: steps}))
        # shares are equal, so that all processes make the same calls; samples beyond that are dropped
        each = -(-len(sequences) // self.workers.size)
        begin = sequences.start + self.workers.rank * each
        batches, length = [], self.length
        for first in range(begin, begin + each, self.batch_size):
            batch = range(first, min(first + self.batch_size, begin + each))
            self.runs.run(student, M, [FIRST_SEQUENCE + i for i in batch])
            ids = student.sequences
            length = ids.shape[1]
            if length != self.length:
                break
            batches.append(ids)
        for made in self.workers.concatenate(torch.tensor([length])).tolist():  # the same answer in all processes
            if made != self.length:
                raise UnequalLengths(
                    f"`reference` has sequences of {self.length} tokens, the pipeline makes {made}: use prompts of"
                    " equal length in tokens."
                )
        return self.workers.concatenate(torch.cat(batches))[: len(sequences)]


def _hexagon(centre: tuple[float, float]) -> list[tuple[float, float]]:
    """A centre and six points around it: the fewest at which a quadratic of two variables is known equally well in
    all directions.
    """
    angles = [math.pi * i / 3 for i in range(6)]
    around = [(centre[0] + RADIUS * math.cos(a), centre[1] + RADIUS * math.sin(a)) for a in angles]
    return [centre, *around]


def lowest(
    points: Sequence[tuple[float, float]], values: Sequence[float], centre: tuple[float, float]
) -> tuple[float, float]:
    """The minimum of the quadratic fitted to the values at the points, no further than [`RADIUS`] from the centre."""
    x_P2 = torch.tensor(points, dtype=torch.float64)
    c = torch.linalg.lstsq(
        _monomials(x_P2), torch.tensor(values, dtype=torch.float64)[:, None], driver="gelsd"
    ).solution
    line = torch.linspace(-RADIUS, RADIUS, 121, dtype=torch.float64)
    offset_G2 = torch.cartesian_prod(line, line)
    offset_G2 = offset_G2[offset_G2.norm(dim=1) <= RADIUS]
    tried_G2 = offset_G2 + torch.tensor(centre, dtype=torch.float64)
    u, v = tried_G2[(_monomials(tried_G2) @ c)[:, 0].argmin()].tolist()
    return u, v


def _monomials(x_P2: torch.Tensor) -> torch.Tensor:
    u_P, v_P = x_P2.unbind(1)
    return torch.stack([torch.ones_like(u_P), u_P, v_P, u_P * u_P, u_P * v_P, v_P * v_P], dim=1)
