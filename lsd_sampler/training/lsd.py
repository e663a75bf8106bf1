"""lsd: coefficients of the score or the log-score (https://huggingface.co/papers/2509.19962, eq. 5-6, algorithm 2).

Teacher and student run with the same noise. At each of the student's times the teacher's prediction, at the teacher's
canvas, is compared with the student's, at the student's own, over positions that are masked in both; there is no
gradient through the draws. As the student's canvas depends on earlier coefficients only, the coefficients are solved
one after another, in closed form (score) or by Newton (log-score).

The pipeline runs once with both: the first half of the batch replays the teacher's canvases, the second half is the
student.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from tqdm.auto import tqdm

from ..sampling.canvas import StepInput
from ..sampling.draws import log_mass
from ..sampling.learned_numbers import LearnedSampler, LearnedSteps
from ..sampling.logit_rows import ModelOutput, row_chunks
from ..sampling.moves import TokenMoves
from ..sampling.solvers import SOLVERS
from ..scheduling_lsd import LSDScheduler
from ..support.workers import Workers
from .canvases import teacher_canvases
from .config import METHODS, NETWORK_CALLS, DistillConfig
from .recording import Recorder, TeacherPlan, UnequalLengths
from .relaxation import RelaxedStart, relaxed_starts
from .task import Task


MAX_BETA = 100.0
MIN_COEFFICIENT = 1e-6

Learn = Callable[[int, Any], tuple[float, float]]
"""From the index of a step and a comparison to the coefficients (Phi, beta) of that step."""


@dataclass
class Comparison:
    """Teacher's and student's predictions in one step, at the positions that are masked in both.

    Newton reads the student's rows several times, so a float32 copy of them is kept; it goes when the step ends.
    """

    teacher_BLV: ModelOutput
    student_BLV: ModelOutput
    row_R: torch.Tensor
    position_R: torch.Tensor
    excluded: int | None
    normalised: bool = False
    workers: Workers = Workers()
    _cached: list[tuple[torch.Tensor, ...]] | None = None

    @property
    def count(self) -> int:
        """Positions that are compared, by all processes."""
        return int(self.workers.sum(torch.tensor(len(self.row_R))))

    def log_score_sums(self) -> tuple[float, float]:
        """Log of the sum of the scores over positions and tokens, teacher's and student's.

        The minimiser of the generalised KL `sum s* log(s* / Phi s) - s* + Phi s` (eq. 6) is the ratio of the two sums.
        All scores of a normalised denoiser have the same sum at one time, whatever the constant in its logits: the
        coefficient is then 1.
        """
        if self.normalised:
            return 0.0, 0.0
        teacher, student = (
            self.workers.logsumexp(
                float(log_mass(x, self.row_R, self.position_R, excluded=self.excluded).logsumexp(0))
            )
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
        chunks = (
            row_chunks(x, self.row_R, self.position_R, self.excluded, size)
            for x in (self.teacher_BLV, self.student_BLV)
        )
        for teacher_RV, x_RV in zip(*chunks, strict=True):
            p_RV = teacher_RV.softmax(-1)
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
        value, slope, curvature = (self.workers.sum(sums) / max(1, self.count)).tolist()
        return value, slope, curvature

    def best_beta(self) -> float:
        """The minimiser of `log_score_loss`, which is convex: Newton, kept inside a bracket by bisection."""
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


@dataclass
class MovesComparison:
    """Teacher's and student's predictions in one step under noise without a mask, where both are in the same state.

    A score is a ratio to the present state, so it can be compared nowhere else.
    """

    teacher_BLV: ModelOutput
    student_BLV: ModelOutput
    row_R: torch.Tensor
    position_R: torch.Tensor
    state_R: torch.Tensor
    reverse: TokenMoves
    t: float
    workers: Workers = Workers()

    @property
    def count(self) -> int:
        """As in `Comparison`."""
        return int(self.workers.sum(torch.tensor(len(self.row_R))))

    def log_score_sums(self) -> tuple[float, float]:
        """Log of the total rate at which tokens move back, teacher's and student's; as in `Comparison`."""
        sums = [0.0, 0.0]
        for i, output_BLV in enumerate((self.teacher_BLV, self.student_BLV)):
            done = 0
            for output_RV in row_chunks(output_BLV, self.row_R, self.position_R, None):
                x_R, done = self.state_R[done : done + len(output_RV)], done + len(output_RV)
                sums[i] += float(self.reverse.total_rates(output_RV, x_R, self.t).sum())
        teacher, student = (self.workers.logsumexp(math.log(x) if x > 0 else -math.inf) for x in sums)
        return teacher, student


class PairedStudent(Recorder):
    """Runs on a batch of `2 B` rows: B teacher canvases that are replayed, B student canvases that are sampled.

    At each step `learn(k, comparison)` is asked for the coefficient of that step.
    """

    workers = Workers()

    def follow(
        self,
        start: LearnedSteps,
        canvases: list[list[torch.Tensor]],
        learn: Learn,
        relaxed: list[RelaxedStart] | None = None,
    ) -> None:
        """Sets the teacher's canvases, `(B, L)` each: before each step and at the end, for each canvas of a run; what
        decides `(Phi_k, beta_k)`; and how the student's canvases are relaxed.
        """
        self.set_learned_sampler(LearnedSampler({start.score_coefficients.numel(): start}))
        self.canvases, self.learn, self.relaxed = canvases, learn, relaxed

    def record(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
        B, states = len(x.sample_BL) // 2, self._of_canvas(self.canvases)
        teacher_BL, student_BL = states[x.k].to(x.sample_BL.device), x.sample_BL[B:]
        if teacher_BL.shape != student_BL.shape or (x.k == 0 and not teacher_BL.equal(x.sample_BL[:B])):
            raise UnequalLengths(
                "The teacher's canvases are not those that this batch begins with (a pipeline pads prompts to the"
                " longest of a batch): use prompts of equal length in tokens, or a `batch_size` of all sequences, and"
                " with `optimizer` 'adam' an `adam_batch_size` of all."
            )
        comparison = self._compare(x, teacher_BL, student_BL)
        self.steps.score_coefficients[x.k], self.steps.log_score_coefficients[x.k] = self.learn(x.k, comparison)
        self.use_steps(self.steps)
        # the teacher's rows are sampled too, for nothing: draws are cheap beside the network
        next_BL, probability_BL = super().record(x)
        following_BL, student_BL = states[x.k + 1].to(next_BL.device), next_BL[B:]
        if x.is_last:  # what comes after this canvas, if anything, is to begin from the same context
            student_BL = following_BL
        elif x.k == 0 and self.relaxed is not None:
            student_BL = self.relaxed[self.canvas_index].fill(student_BL, x.logits_BLV.shape[-1], x.mask_token_id)
        return torch.cat([following_BL, student_BL]), probability_BL

    def _compare(
        self, x: StepInput, teacher_BL: torch.Tensor, student_BL: torch.Tensor
    ) -> Comparison | MovesComparison:
        outputs = x.logits_BLV[: len(teacher_BL)], x.logits_BLV[len(teacher_BL) :]
        if isinstance(self.rule, TokenMoves):
            row_R, position_R = (teacher_BL == student_BL).nonzero(as_tuple=True)
            state_R, t = teacher_BL[row_R, position_R], float(self.steps.timesteps[x.k])
            return MovesComparison(*outputs, row_R, position_R, state_R, self.rule, t, self.workers)
        both_BL = (teacher_BL == x.mask_token_id) & (student_BL == x.mask_token_id)
        row_R, position_R = both_BL.nonzero(as_tuple=True)
        normalised = self.config.prediction_type == "logits"
        return Comparison(*outputs, row_R, position_R, x.mask_token_id, normalised, self.workers)


def lsd(task: Task) -> LearnedSampler:
    """Learns the coefficients for each NFE of the config, on the base grid."""
    domain = _domain(task.base, task.config)
    if task.config.optimizer == "adam" and task.workers.size > 1:
        raise ValueError("`optimizer` 'adam' makes a step for every few sequences: use one process, or 'exact'.")
    canvases = teacher_canvases(task)
    student, steps = PairedStudent.from_config(task.base.config), {}
    student.workers = task.workers
    for M in tqdm(task.config.nfe, desc="coefficients", unit="NFE"):
        start = LearnedSteps.plain(task.base.steps_for(M).timesteps)
        paths = canvases.at(M)
        learn = _learn_exactly if task.config.optimizer == "exact" else _learn_with_adam
        done = task.progress.load(f"nfe-{M}")
        if done is None:
            steps[M] = learn(task, student, start, paths, domain)
            task.progress.save(
                f"nfe-{M}", {**asdict(steps[M]), "network_calls": torch.tensor(task.runs.network_calls)}
            )
        else:
            task.runs.network_calls = int(done.pop("network_calls"))
            steps[M] = LearnedSteps(**done)
        task.log(
            event="coefficients",
            nfe=M,
            domain=domain,
            score_coefficients=steps[M].score_coefficients.tolist(),
            log_score_coefficients=steps[M].log_score_coefficients.tolist(),
            network_calls=task.runs.network_calls,
        )
    return LearnedSampler(steps)


def network_calls(config: DistillConfig, plan: TeacherPlan) -> int:
    """`C (1 + batches N + sum of the NFEs)`; with Adam `updates` times the sum."""
    updates = config.epochs * -(-config.resolved_num_sequences // config.adam_batch_size)
    passes = updates if config.optimizer == "adam" else 1
    # canvases of noise without a mask are recorded in one run of all sequences
    batches = config.num_batches if SOLVERS[config.resolved_teacher_solver].distillable else 1
    return plan.num_canvases * (1 + batches * plan.num_steps + passes * sum(config.nfe))


METHODS.register("lsd", lsd)
NETWORK_CALLS.register("lsd", network_calls)


def _domain(base: LSDScheduler, config: DistillConfig) -> str:
    has_mask = base.config.corruption == "absorbing"
    if config.domain == "log_score" and not has_mask:
        raise ValueError("`domain` 'log_score' is for absorbing noise: without a mask use 'score'.")
    scored = base.config.prediction_type == "log_score" or not has_mask
    return config.domain or ("score" if scored else "log_score")


def run_pair(
    task: Task,
    student: PairedStudent,
    start: LearnedSteps,
    paths: list[list[torch.Tensor]],
    sequences: Sequence[int],
    learn: Learn,
) -> None:
    """One run of these sequences, teacher's and student's."""
    rows = [i - task.sequences.start for i in sequences]
    taken = [[state[rows] for state in path] for path in paths]
    masked = [path[0] == student.config.mask_token_id for path in taken]
    relaxed = relaxed_starts([(m, path[-1]) for m, path in zip(masked, taken, strict=True)], sequences, task.config)
    student.follow(start, taken, learn, relaxed)
    task.runs.run(student, len(start.score_coefficients), [*sequences, *sequences])


def _learn_exactly(
    task: Task,
    student: PairedStudent,
    start: LearnedSteps,
    paths: list[list[torch.Tensor]],
    domain: str,
) -> LearnedSteps:
    """One run: each coefficient is solved when its step comes; over several canvases it is pooled as they come."""
    M = len(start.score_coefficients)
    scores = [(-math.inf, -math.inf)] * M
    weights, betas = [0] * M, [1.0] * M

    def learn_phi(k: int, comparison: Comparison) -> tuple[float, float]:
        if comparison.count:
            teacher, student = comparison.log_score_sums()
            scores[k] = _log_add(scores[k][0], teacher), _log_add(scores[k][1], student)
        teacher, student = scores[k]
        return (math.exp(teacher - student) if math.isfinite(student) else 1.0), 1.0

    def learn_beta(k: int, comparison: Comparison) -> tuple[float, float]:
        if count := comparison.count:
            weights[k] += count
            betas[k] += count / weights[k] * (comparison.best_beta() - betas[k])
        return 1.0, betas[k]

    learn = learn_phi if domain == "score" else learn_beta
    run_pair(task, student, start, paths, task.sequences, learn)
    return student.steps


def _log_add(a: float, b: float) -> float:
    """`log(exp(a) + exp(b))`."""
    low, high = sorted((a, b))
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def _learn_with_adam(
    task: Task,
    student: PairedStudent,
    start: LearnedSteps,
    paths: list[list[torch.Tensor]],
    domain: str,
) -> LearnedSteps:
    """The paper's recipe (algorithm 2): `epochs` passes, one gradient step per `adam_batch_size` sequences."""
    M = len(start.score_coefficients)
    adam = _Adam(domain, M, task.config.learning_rate)
    shuffle = torch.Generator().manual_seed(task.config.seed)
    first, stored = 0, task.progress.load(f"adam-{M}")
    if stored is not None:
        first, task.runs.network_calls = int(stored["epochs"]), int(stored["network_calls"])
        shuffle.set_state(stored["shuffle"])
        adam.load(stored)
    for epoch in range(first, task.config.epochs):
        for sequences in torch.randperm(task.config.resolved_num_sequences, generator=shuffle).split(
            task.config.adam_batch_size
        ):
            run_pair(task, student, start, paths, sequences.tolist(), adam)
            adam.update()
        counters = {"epochs": torch.tensor(epoch + 1), "network_calls": torch.tensor(task.runs.network_calls)}
        task.progress.save(f"adam-{M}", {**adam.tensors(), **counters, "shuffle": shuffle.get_state()})
    pairs = [adam.coefficients(k) for k in range(M)]
    return LearnedSteps(start.timesteps, *(torch.tensor(c, dtype=torch.float64) for c in zip(*pairs, strict=True)))


class _Adam:
    """Adam on the coefficients, kept from falling below 0. Call it for the gradients, `update` for a step."""

    def __init__(self, domain: str, M: int, learning_rate: float):
        self.domain = domain
        self.values = torch.ones(M, dtype=torch.float64)
        self.gradient = self.values.grad = torch.zeros_like(self.values)
        self.optimizer = torch.optim.Adam([self.values], lr=learning_rate)
        # one for all sequences, so that they count by their scores
        self.scale = torch.full((M,), math.nan, dtype=torch.float64)

    def coefficients(self, k: int) -> tuple[float, float]:
        value = float(self.values[k])
        return (value, 1.0) if self.domain == "score" else (1.0, value)

    def __call__(self, k: int, comparison: Comparison) -> tuple[float, float]:
        value, count = float(self.values[k]), comparison.count
        if count and self.domain == "score":
            teacher, student = comparison.log_score_sums()
            if self.scale[k].isnan():
                self.scale[k] = teacher
            scale = float(self.scale[k])
            self.gradient[k] += math.exp(student - scale) - math.exp(teacher - scale) / value
        elif count:
            self.gradient[k] += comparison.log_score_loss(value)[1] * count
        return self.coefficients(k)

    def update(self) -> None:
        self.optimizer.step()
        self.values.clamp_(min=MIN_COEFFICIENT)
        self.gradient.zero_()

    def tensors(self) -> dict[str, torch.Tensor]:
        """What `load` needs to go on."""
        state = self.optimizer.state_dict()["state"][0]
        return {"values": self.values, "scale": self.scale, **{f"adam.{name}": state[name] for name in state}}

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        self.values.copy_(tensors["values"])
        self.scale.copy_(tensors["scale"])
        whole = self.optimizer.state_dict()
        whole["state"] = {0: {name.split(".")[1]: t for name, t in tensors.items() if name.startswith("adam.")}}
        self.optimizer.load_state_dict(whole)
