"""lsd: coefficients of the score or the log-score (https://huggingface.co/papers/2509.19962, eq. 5-6, algorithm 2).

Teacher and student run with the same noise. At each of the student's times the teacher's prediction, at the teacher's
canvas, is compared with the student's, at the student's own, over positions that are masked in both; there is no
gradient through the draws. As the student's canvas depends on earlier coefficients only, the coefficients are solved
one after another, in closed form (score) or by Newton (log-score).

The pipeline runs once with both: the first half of the batch replays the teacher's canvases, the second half is the
student.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm

from ..canvas import StepInput
from ..checkpoint import LearnedSampler, LearnedSteps
from ..random import gather_rows, log_mass
from ..scheduling_lsd import LSDScheduler
from .config import METHODS, DistillConfig
from .recording import PipelineRuns, TeacherRecorder, teacher_plan


MAX_BETA = 100.0
MIN_COEFFICIENT = 1e-6

Learn = Callable[[int, "Comparison"], tuple[float, float]]


@dataclass
class Comparison:
    """Teacher's and student's predictions in one step, at the positions that are masked in both.

    Newton reads the student's rows several times, so a float32 copy of them is kept; it goes when the step ends.
    """

    teacher_BLV: torch.Tensor
    student_BLV: torch.Tensor
    row_R: torch.Tensor
    position_R: torch.Tensor
    excluded: int | None
    normalised: bool = False
    _cached: list[tuple[torch.Tensor, ...]] | None = None

    def log_score_sums(self) -> tuple[float, float]:
        """Log of the sum of the scores over positions and tokens, teacher's and student's.

        All scores of a normalised denoiser have the same sum at one time, whatever the constant in its logits: the
        coefficient is then 1.
        """
        if self.normalised:
            return 0.0, 0.0
        teacher, student = (
            float(log_mass(x, self.row_R, self.position_R, excluded=self.excluded).logsumexp(0))
            for x in (self.teacher_BLV, self.student_BLV)
        )
        return teacher, student

    def _chunks(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """Some rows at a time: the student's log-scores below their maximum, where they are -inf, the teacher's mass
        elsewhere, and its sum of the student's log-scores there.
        """
        if self._cached is None:
            self._cached = list(self._read_chunks())
        yield from self._cached

    def _read_chunks(self) -> Iterator[tuple[torch.Tensor, ...]]:
        size = max(1, 2**20 // self.student_BLV.shape[-1])
        for row, position in zip(self.row_R.split(size), self.position_R.split(size), strict=True):
            p_RV = gather_rows(self.teacher_BLV, row, position, self.excluded).softmax(-1)
            x_RV = gather_rows(self.student_BLV, row, position, self.excluded)
            # no coefficient gives the student a token that it deems impossible
            impossible_RV = x_RV == -torch.inf
            x_RV = (x_RV - x_RV.amax(-1, keepdim=True)).masked_fill_(impossible_RV, 0)
            p_RV = p_RV.masked_fill_(impossible_RV, 0)
            mass_R = p_RV.sum(-1, dtype=torch.float64)
            yield x_RV, impossible_RV, mass_R, p_RV.mul_(x_RV).sum(-1, dtype=torch.float64)

    def log_score_loss(self, beta: float) -> tuple[float, float, float]:
        """Mean over positions of KL(softmax(log s*) || softmax(beta log s)), up to a constant.

        Tokens that the student deems impossible are left out: no coefficient can give them to it.

        Returns:
            value, first and second derivative in beta.
        """
        sums = torch.zeros(3, dtype=torch.float64)
        for x_RV, impossible_RV, mass_R, teacher_R in self._chunks():
            e_RV = (beta * x_RV).exp_().masked_fill_(impossible_RV, 0)
            total_R = e_RV.sum(-1, dtype=torch.float64)
            ex_RV = e_RV.mul_(x_RV)
            mean_R = ex_RV.sum(-1, dtype=torch.float64) / total_R
            square_R = ex_RV.mul_(x_RV).sum(-1, dtype=torch.float64) / total_R
            value = (mass_R * total_R.log() - beta * teacher_R).sum()
            slope, curvature = (mass_R * mean_R - teacher_R).sum(), (mass_R * (square_R - mean_R.square())).sum()
            sums += torch.stack([value, slope, curvature]).cpu()
        value, slope, curvature = (sums / max(1, len(self.row_R))).tolist()
        return value, slope, curvature

    def best_phi(self) -> float:
        """The minimiser of the generalised KL sum s* log(s* / Phi s) - s* + Phi s (eq. 6): a ratio of total scores."""
        if not len(self.row_R):
            return 1.0
        teacher, student = self.log_score_sums()
        return math.exp(teacher - student)

    def best_beta(self) -> float:
        """The minimiser of `log_score_loss`, which is convex: Newton, kept inside a bracket by bisection."""
        if not len(self.row_R):
            return 1.0
        low, high, beta = 0.0, MAX_BETA, 1.0
        tolerance = 1e-10 if self.student_BLV.dtype == torch.float64 else 1e-6
        for _ in range(60):
            _, slope, curvature = self.log_score_loss(beta)
            if abs(slope) <= tolerance:  # at the first step both canvases are the same
                return beta
            if slope > 0:
                high = beta
            else:
                low = beta
            step = beta - slope / curvature if curvature > 0 else math.nan
            new = step if low < step < high else (low + high) / 2
            if abs(new - beta) <= tolerance * max(1.0, beta):
                return new
            beta = new
        return beta


class PairedStudent(LSDScheduler):
    """Runs on a batch of `2 B` rows: B teacher canvases that are replayed, B student canvases that are sampled.

    At each step `learn(k, comparison)` is asked for the coefficient of that step.
    """

    def follow(
        self,
        start: LearnedSteps,
        states: list[torch.Tensor],
        learn: Learn,
    ) -> None:
        """Sets the teacher's canvases before each step, `(B, L)` each, and what decides `(Phi_k, beta_k)`."""
        self.set_learned_sampler(LearnedSampler({start.score_coefficients.numel(): start}))
        self.states, self.learn = states, learn

    def _advance(self, x: StepInput) -> torch.Tensor:
        B, mask_token_id = len(x.sample_BL) // 2, self.config.mask_token_id
        teacher_BL, student_BL = self.states[x.k].to(x.sample_BL.device), x.sample_BL[B:]
        row_R, position_R = ((teacher_BL == mask_token_id) & (student_BL == mask_token_id)).nonzero(as_tuple=True)
        normalised = self.config.prediction_type == "logits"
        comparison = Comparison(x.logits_BLV[:B], x.logits_BLV[B:], row_R, position_R, mask_token_id, normalised)
        self.steps.score_coefficients[x.k], self.steps.log_score_coefficients[x.k] = self.learn(x.k, comparison)
        self._use(self.steps)
        following_BL = self.states[min(x.k + 1, len(self.states) - 1)].to(x.sample_BL.device)
        # the teacher's rows are sampled too, for nothing: draws are cheap beside the network
        return torch.cat([following_BL, super()._advance(x)[B:]])


def lsd(runs: PipelineRuns, base: LSDScheduler, config: DistillConfig, log: Callable[..., None]) -> LearnedSampler:
    """Learns the coefficients for each NFE of the config, on the base grid."""
    domain = config.domain or ("score" if base.config.prediction_type == "log_score" else "log_score")
    teacher = TeacherRecorder.from_config(base.config)
    _, num_steps = teacher_plan(runs, teacher, config)
    states = _teacher_states(runs, teacher, config, num_steps)
    log(event="teacher", steps=num_steps, sequences=config.num_sequences, network_calls=runs.network_calls)
    steps = {}
    for M in tqdm(config.nfe, desc="coefficients", unit="NFE"):
        student, start = PairedStudent.from_config(base.config), LearnedSteps.plain(base.steps_for(M).timesteps)
        states_M = [states[index] for index in _kept(M, num_steps)]
        learn = _learn_exactly if config.optimizer == "exact" else _learn_with_adam
        steps[M] = learn(runs, student, start, states_M, config, domain)
        log(
            event="coefficients",
            nfe=M,
            domain=domain,
            score_coefficients=steps[M].score_coefficients.tolist(),
            log_score_coefficients=steps[M].log_score_coefficients.tolist(),
            network_calls=runs.network_calls,
        )
    return LearnedSampler(steps)


METHODS.register("lsd", lsd)


def _kept(M: int, num_steps: int) -> list[int]:
    """The teacher's steps that begin at the student's M times."""
    return [round(k * num_steps / M) for k in range(M)]


def _teacher_states(
    runs: PipelineRuns, teacher: TeacherRecorder, config: DistillConfig, num_steps: int
) -> dict[int, torch.Tensor]:
    """The teacher's canvases before each step that a student needs, `(num_sequences, L)`: one run for all NFE."""
    kept = frozenset(index for M in config.nfe for index in _kept(M, num_steps))
    batches = []
    for first in range(0, config.num_sequences, config.batch_size):
        num = min(config.batch_size, config.num_sequences - first)
        teacher.watch(kept)
        runs.run(teacher, num_steps, runs.generators(first, num))
        batches.append(teacher.states)
    return {index: torch.cat([states[index] for states in batches]) for index in kept}


def _run_pair(
    runs: PipelineRuns,
    student: PairedStudent,
    start: LearnedSteps,
    states: list[torch.Tensor],
    sequences: list[int],
    learn: Learn,
) -> None:
    student.follow(start, [state[sequences] for state in states], learn)
    generators = [g for _ in range(2) for i in sequences for g in runs.generators(i, 1)]
    runs.run(student, len(states), generators)


def _learn_exactly(
    runs: PipelineRuns,
    student: PairedStudent,
    start: LearnedSteps,
    states: list[torch.Tensor],
    config: DistillConfig,
    domain: str,
) -> LearnedSteps:
    """One run: each coefficient is solved when its step comes."""

    def learn(k: int, comparison: Comparison) -> tuple[float, float]:
        return (comparison.best_phi(), 1.0) if domain == "score" else (1.0, comparison.best_beta())

    _run_pair(runs, student, start, states, list(range(config.num_sequences)), learn)
    return student.steps


def _learn_with_adam(
    runs: PipelineRuns,
    student: PairedStudent,
    start: LearnedSteps,
    states: list[torch.Tensor],
    config: DistillConfig,
    domain: str,
) -> LearnedSteps:
    """The paper's recipe (algorithm 2): `epochs` passes, one gradient step per `adam_batch_size` sequences."""
    adam = _Adam(domain, len(states), config.learning_rate)
    shuffle = torch.Generator().manual_seed(config.seed)
    for _ in range(config.epochs):
        for sequences in torch.randperm(config.num_sequences, generator=shuffle).split(config.adam_batch_size):
            _run_pair(runs, student, start, states, sequences.tolist(), adam)
            adam.update()
    pairs = [adam.coefficients(k) for k in range(len(states))]
    return LearnedSteps(start.timesteps, *(torch.tensor(c, dtype=torch.float64) for c in zip(*pairs, strict=True)))


class _Adam:
    """Adam on the coefficients, kept from falling below 0. Call it for the gradients, `update` for a step."""

    def __init__(self, domain: str, M: int, learning_rate: float):
        self.domain = domain
        self.values = torch.ones(M, dtype=torch.float64)
        self.values.grad = torch.zeros_like(self.values)
        self.optimizer = torch.optim.Adam([self.values], lr=learning_rate)
        self.scale: dict[int, float] = {}

    def coefficients(self, k: int) -> tuple[float, float]:
        value = float(self.values[k])
        return (value, 1.0) if self.domain == "score" else (1.0, value)

    def __call__(self, k: int, comparison: Comparison) -> tuple[float, float]:
        value, count = float(self.values[k]), len(comparison.row_R)
        assert self.values.grad is not None
        if not count:
            self.values.grad[k] = 0.0
        elif self.domain == "score":
            teacher, student = comparison.log_score_sums()
            scale = self.scale.setdefault(k, teacher)  # one for all sequences, so that they count by their scores
            self.values.grad[k] = math.exp(student - scale) - math.exp(teacher - scale) / value
        else:
            self.values.grad[k] = comparison.log_score_loss(value)[1] * count
        return self.coefficients(k)

    def update(self) -> None:
        self.optimizer.step()
        self.values.clamp_(min=MIN_COEFFICIENT)
