"""jys: Jump Your Steps (https://huggingface.co/papers/2410.07761), times that minimise a bound on compounding error.

A step from t1 to t3 that is split at t2 no longer uses the rates of `(x_t1, t1)` from t2 on, but those of
`(x_t2, t2)`. The gain is measured by

    KLUB(t1, t2, t3) = E (t2 - t3) sum_v R_2(v) (log R_2(v) - log R_1(v)),    R_j = reverse rates at (x_tj, tj),

the mean over positions, where x_t1 and x_t2 are noised from the same data with the same noise, so that what is masked
at t2 is masked at t1. (The terms `R_1 - R_2` of a path divergence are left out, as in the authors' code, which this
follows.) A golden-section search finds the t2 that maximises it. Each level splits all intervals of the one before,
which gives schedules of 2, 4, 8, ... steps, each nested in the next. Coefficients stay 1.

The data are the teacher's samples, noised by its own noise. All intervals of a level are searched together: one run of
the pipeline visits `(x_t1, t1)` and the points in question of the first interval, then those of the second, and so on.
"""

import itertools
from collections.abc import Callable, Generator
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm

from ...denoisers.sizes import ModelSize
from ...sampling.canvas import Canvas, StepInput
from ...sampling.learned_numbers import LearnedSampler, LearnedSteps
from ...sampling.logit_rows import row_chunks
from ..budget import itemsize_of
from ..method import Method
from ..paths import TeacherPath, teacher_paths
from ..recipe import Recipe
from ..recording import Recorder
from ..shared_options import SharedOptions
from ..task import Task


CELLS = 1024
"""Number of equal intervals of time in the grid that schedules lie on."""
GOLDEN = 1.618
MARGIN = 1e-3
"""How far from its ends an interval must be split."""
TOLERANCE = 0.25 / CELLS
MAX_ITERATIONS = 32
MAX_STEPS = 512
"""Neighbouring times of a schedule lie at least two cells of the grid apart before it is refined."""
FLOOR = 1e-8
"""Added to rates inside logarithms."""

Search = Generator[list[float], list[float], float]
"""A search that yields the points to evaluate next, is sent their values, and returns its result."""


def golden_section(
    low: float, high: float, tolerance: float = TOLERANCE, max_iterations: int = MAX_ITERATIONS
) -> Search:
    """The best of the points at which a golden-section search evaluates a function that it minimises.

    As in the authors' code, a point that is better than the middle one takes its place, and the ends stay. Only a
    worse point narrows the interval.
    """
    a, b, c = low, low + (high - low) / (1 + GOLDEN), high
    values = dict(zip([a, b, c], (yield [a, b, c]), strict=True))
    for _ in range(max_iterations):
        if c - a <= tolerance:
            break
        on_left = b - a > c - b
        x = b - (b - a) / (1 + GOLDEN) if on_left else b + (c - b) / (1 + GOLDEN)
        if x not in values:
            (values[x],) = yield [x]
        if values[x] < values[b]:
            b = x
        elif on_left:
            a = x
        else:
            c = x
    return min(values, key=values.__getitem__)


@dataclass
class Visit:
    """A time at which the network is called.

    Args:
        t (`float`): the time.
        begins (`bool`): whether an interval begins here; otherwise this is a point inside the latest interval.
        ends_at (`float`): the end of the interval that a point is in.
    """

    t: float
    begins: bool
    ends_at: float = 0.0


class KLUBRecorder(Recorder):
    """Visits noised data; adds up the KLUB of every point, with the rates at the beginning of its interval."""

    def follow(self, visits: list[Visit]) -> None:
        """Sets the visits of the next runs, in this order, and forgets what was measured."""
        times = torch.tensor([*(visit.t for visit in visits), visits[-1].t / 2], dtype=torch.float64)
        self.set_learned_sampler(LearnedSampler({len(visits): LearnedSteps.plain(times)}))
        self.visits = visits
        self.sums, self.num_positions = torch.zeros(len(visits), dtype=torch.float64), 0

    def noise_from(self, paths: list[TeacherPath]) -> None:
        """Sets the data of the next run."""
        self.paths = paths

    def record(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
        visit, path = self.visits[x.k], self._of_canvas(self.paths).to(x.sample_BL.device)
        if x.k == 0:
            self.num_positions += path.final_BL.numel()
        if visit.begins:
            # its rates are compared at the positions that are masked at the first point, or at fewer of them
            self._begun_BL = self._noised(x.canvas, self.visits[x.k + 1].t)
            none_0V = torch.zeros(0, x.logits_BLV.shape[-1], device=x.sample_BL.device)
            self._begun = visit.t, torch.cat(self._rows(x, self._begun_BL) or [none_0V])
        else:
            self._add(x, visit)
        last = x.k + 1 == len(self.visits)
        masked_BL = torch.zeros_like(path.masked_BL) if last else self._noised(x.canvas, self.visits[x.k + 1].t)
        next_BL = path.final_BL.masked_fill(masked_BL, x.mask_token_id)
        return next_BL, torch.zeros(next_BL.shape, device=next_BL.device)

    def _add(self, x: StepInput, visit: Visit) -> None:
        begun_t, begun_RV = self._begun
        masked_BL = self._noised(x.canvas, visit.t)
        done, rows_1 = 0, begun_RV[masked_BL[self._begun_BL]]
        for output_2 in self._rows(x, masked_BL):
            output_1, done = rows_1[done : done + len(output_2)], done + len(output_2)
            terms_R = klub_terms(self.rates(output_1, begun_t), self.rates(output_2, visit.t))
            self.sums[x.k] += float(terms_R.sum()) * (visit.t - visit.ends_at)

    def _rows(self, x: StepInput, masked_BL: torch.Tensor) -> list[torch.Tensor]:
        row_R, position_R = masked_BL.nonzero(as_tuple=True)
        return list(row_chunks(x.logits_BLV, row_R, position_R, x.mask_token_id))

    def rates(self, output_RV: torch.Tensor, t: float) -> torch.Tensor:
        """Reverse rates at masked positions, from the network's output. `(R, V)`."""
        rate = float(self.noise.rate(t))
        if self.config.prediction_type == "log_score":
            return rate * output_RV.exp()
        return rate * float(self.noise.alpha(t) / self.noise.masked(t)) * output_RV.softmax(-1)

    def _noised(self, canvas: Canvas, t: float) -> torch.Tensor:
        """What is masked at time t, `(B, L)`: everything at t = 1, as in the first canvas."""
        masked = float(self.noise.masked(t) / self.noise.masked(1.0))
        if self.config.count == "exact":
            known_B = (canvas.masked_BL.sum(1) * (1 - masked)).round()
            return canvas.masked_BL & (canvas.rank_BL >= known_B[:, None])
        return canvas.masked_BL & (canvas.u_BL >= 1 - masked)


def klub_terms(rate_1_RV: torch.Tensor, rate_2_RV: torch.Tensor) -> torch.Tensor:
    """`sum_v R_2 (log R_2 - log R_1)` of each row."""
    return (rate_2_RV * ((rate_2_RV + FLOOR).log() - (rate_1_RV + FLOOR).log())).sum(-1, dtype=torch.float64)


class JYS(Method):
    """Learns times, by splitting intervals."""

    name = "jys"

    def check_config(self, config: SharedOptions) -> None:
        super().check_config(config)
        unfit = [M for M in config.nfe if M & (M - 1) or M > MAX_STEPS]
        if unfit:
            raise ValueError(f"`nfe` must be powers of two up to {MAX_STEPS} for `method` 'jys', got {unfit[0]}.")

    def learn(self, task: Task) -> LearnedSampler:
        """Splits intervals until the largest NFE of the config is reached; keeps the schedules for its NFEs."""
        batches = teacher_paths(task)
        recorder = KLUBRecorder.from_config(task.base.config)
        times = torch.linspace(1.0, task.base.config.sampling_eps, CELLS + 1, dtype=torch.float64)
        schedule, steps = [0, CELLS], {}
        for level in tqdm(range(_num_levels(task.config) + 1), desc="schedules", unit="level"):
            if level:
                schedule = _next_level(task, recorder, batches, times, schedule)
            M = len(schedule) - 1
            if M in task.config.nfe:
                steps[M] = LearnedSteps.plain(times[schedule])
                task.log(
                    event="steps",
                    nfe=M,
                    timesteps=steps[M].timesteps.tolist(),
                    score_coefficients=steps[M].score_coefficients.tolist(),
                    network_calls=task.runs.network_calls,
                )
        return LearnedSampler(steps)

    def network_calls(self, recipe: Recipe) -> int:
        """At most `C (1 + batches (N + (4 + 2 I) (NFE - 1)))`, for the largest NFE and I = 32 iterations of a search.

        A search ends earlier if its interval is narrow enough, as it soon is at later levels.
        """
        searches = (4 + 2 * MAX_ITERATIONS) * (2 ** _num_levels(recipe.config) - 1)
        return recipe.plan.num_canvases * (1 + recipe.num_batches * (recipe.plan.num_steps + searches))

    def memory(self, size: ModelSize, recipe: Recipe) -> dict[str, int]:
        memory = super().memory(size, recipe)
        rows = min(recipe.config.batch_size, recipe.num_sequences) * recipe.plan.num_masked
        # the rates at the beginning of an interval
        return {**memory, "logits": memory["logits"] + 2 * itemsize_of(size) * rows * size.columns}


def _num_levels(config: SharedOptions) -> int:
    return config.nfe[-1].bit_length() - 1


def _next_level(
    task: Task,
    recorder: KLUBRecorder,
    batches: list[list[TeacherPath]],
    times: torch.Tensor,
    schedule: list[int],
) -> list[int]:
    """The schedule with every interval split."""
    M = 2 * (len(schedule) - 1)
    stored = task.progress.load(f"level-{M}")
    if stored is not None:
        task.runs.network_calls = int(stored["network_calls"])
        return stored["schedule"].tolist()
    ends = times[spread(schedule)].tolist()
    # values from before a stop: a search that gets the same answers asks for the same points
    known = task.progress.load(f"searches-{M}") or {}
    task.runs.network_calls = int(known.get("network_calls", task.runs.network_calls))
    asked = itertools.count()

    def evaluate(visits: list[Visit]) -> list[float]:
        name = f"klub-{next(asked)}"
        if name not in known:
            recorder.follow(visits)
            for sequences, paths in zip(task.batches(), batches, strict=True):
                recorder.noise_from(paths)
                task.runs.run(recorder, len(visits), sequences)
            positions = task.workers.sum(torch.tensor(recorder.num_positions))
            known[name] = task.workers.sum(recorder.sums) / positions
            known["network_calls"] = torch.tensor(task.runs.network_calls)
            task.progress.save(f"searches-{M}", known)
        return known[name].tolist()

    found = split_intervals(ends, evaluate)
    merged = [t for pair in zip(ends, found, strict=False) for t in pair] + [ends[-1]]
    schedule = make_distinct([int((times - t).abs().argmin()) for t in merged])
    counters = {"network_calls": torch.tensor(task.runs.network_calls)}
    task.progress.save(f"level-{M}", {"schedule": torch.tensor(schedule), **counters})
    return schedule


def split_intervals(ends: list[float], evaluate: Callable[[list[Visit]], list[float]]) -> list[float]:
    """Where to split each interval between decreasing `ends`, all searches going on together.

    Args:
        ends (`list[float]`): M + 1 times.
        evaluate: from the visits of a run to the KLUB of each.
    """
    searches = [golden_section(t3 + MARGIN, t1 - MARGIN) for t1, t3 in zip(ends, ends[1:], strict=False)]
    wanted = {i: next(search) for i, search in enumerate(searches)}
    found = [0.0] * len(searches)
    while wanted:
        visits: list[Visit] = []
        for i, points in wanted.items():
            visits.append(Visit(ends[i], begins=True))
            visits += [Visit(t, begins=False, ends_at=ends[i + 1]) for t in sorted(points, reverse=True)]
        klub = {visit.t: value for visit, value in zip(visits, evaluate(visits), strict=True) if not visit.begins}
        for i, points in list(wanted.items()):
            try:
                wanted[i] = searches[i].send([-klub[t] for t in points])
            except StopIteration as done:
                found[i] = done.value
                del wanted[i]
    return found


def spread(schedule: list[int]) -> list[int]:
    """The schedule with neighbours pushed at least two cells apart, so that there is room between them."""
    spread = list(schedule)
    for i in range(1, len(spread)):
        spread[i] = max(spread[i], min(spread[i - 1] + 2, CELLS))
    for i in reversed(range(len(spread) - 1)):
        spread[i] = min(spread[i], max(spread[i + 1] - 2, 0))
    return spread


def make_distinct(schedule: list[int]) -> list[int]:
    """Indices that increase, from 0 to the last cell."""
    distinct = list(schedule)
    for i in range(1, len(distinct) - 1):
        distinct[i] = max(distinct[i], distinct[i - 1] + 1)
    for i in reversed(range(len(distinct) - 1)):
        distinct[i] = min(distinct[i], distinct[i + 1] - 1)
    return distinct
