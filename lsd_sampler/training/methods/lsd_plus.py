"""lsd+: coefficients of the score and the steps themselves (https://huggingface.co/papers/2509.19962, eq. 7-10).

The steps are `kappa_k > 0` with sum `1 - eps`; `tau_k = 1 - sum_{l<k} kappa_l` are the student's times. As printed,
eq. 8 compares a student's step with *one* step of the teacher, and is degenerate: see `literal`. Here both cover the
same interval: the student's `kappa_k sigma(tau_k) Phi_k s(x_{tau_k}, tau_k)` is compared with what the teacher
accumulates from `tau_k` to `tau_{k+1}`, `sum_j dt*_j sigma s*_j`, in generalised KL. By the chain rule that is the sum
of two parts:

- how much is revealed: the minimiser is closed-form, `Phi_k` = share of the masked positions that the teacher reveals
  in the interval / share that the student's own step would;
- which tokens: `-log p(token | x_{tau_k})`, expected under the teacher's prediction when it reveals the position. The
  token that the teacher did reveal is one draw from that prediction, so nothing of the size of the logits is kept.
  (If predictions were accumulated first and then compared, they would cost no more, by the log-sum inequality. Both
  differ from a KL by the teacher's own entropy, which is the same for every grid.)

`x_{tau_k}` is the teacher's canvas, as the chain rule asks, but relaxed: within the Hamming distance of eq. 9. Variant
`own_canvas` leaves the student on canvases of its own, drawn with the teacher's noise. That is degenerate too. After
the first token that differs, the two rightly disagree about all that depends on it. The best grid then never gets
there: it takes the teacher's own first M - 1 steps and then a jump. (Reverse KL at 4 calls, in nats per transition,
as `lsd-eval` prints it for samplers from `lsd-train --model countdown:V=16,L=64 --method lsd+ --nfe 4`: 11.9 with
`--variant own_canvas`, 1.8 with `interval`, 3.5 on the uniform grid.)

There is no gradient through the draws. A gradient in kappa that ignores them only ever shortens the first steps,
because a later state knows more only through the draws. So grids are tried. A replay measures the objective of a grid,
and what a token costs at each of its states. The next grid is a shortest path, for which the cost is taken to fall
geometrically between the states seen so far. The search ends when a grid recurs, and the best one that was measured is
the result. The first grid is the uniform one, so the result cannot be worse than that by its own objective.

With a normalised denoiser (RADD, MDLM, oracles), time only enters through the share `r_k` of masked positions that a
step reveals, so steps and score coefficients are one family. `Phi_k` then follows from the noise alone, whatever the
network says: it is 1 for tweedie, and for euler under log-linear noise; elsewhere it makes up for euler's error in
`r_k`. The `r_k` are what is learned, from the tokens.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from tqdm.auto import tqdm

from ...sampling.canvas import StepInput
from ...sampling.learned_numbers import LearnedSampler, LearnedSteps, StepErrorTable
from ...sampling.orders import ORDERS
from ...sampling.schedules import replay_states
from ...sampling.solvers import SOLVERS
from ...scheduling_lsd import LSDScheduler
from ...support.workers import Workers
from ..cross_entropy import cross_entropy
from ..isotonic import isotonic_decreasing
from ..method import Method
from ..options import check_positive, option
from ..paired_student import PairedStudent, run_pair
from ..paths import TeacherPath, teacher_paths
from ..recipe import Recipe
from ..recording import Recorder
from ..relaxation import RelaxationOptions, RelaxedStart, relaxation_option, relaxed_starts
from ..student_comparison import Comparison, MovesComparison
from ..task import Task
from ..teacher_canvases import teacher_canvases


VARIANTS = ("interval", "own_canvas", "literal")
MAX_CANDIDATES = 1024
"""The largest number of the teacher's times that the student's are chosen from."""


class IntervalStudent(Recorder):
    """A student that is judged by a teacher's paths. At each step it gets its score coefficient, and its prediction is
    compared with the tokens that the teacher revealed.
    """

    workers = Workers()

    def follow(self, times: torch.Tensor, bounds: list[int], coefficients: torch.Tensor | None, own: bool) -> None:
        """Sets what to run from now on, and forgets all that was measured.

        Args:
            times (`torch.DoubleTensor` of shape `(M + 1,)`): of the grid.
            bounds (`list[int]`): the teacher's steps at which the student's steps begin, then the teacher's number of
                steps.
            coefficients (`torch.DoubleTensor` of shape `(M,)`, *optional*): of the score, if they are known.
            own (`bool`): whether the student stays on its own canvases, or is put on the teacher's after each step.
        """
        M = len(bounds) - 1
        self.set_learned_sampler(LearnedSampler({M: LearnedSteps.plain(times)}))
        self.bounds, self.coefficients, self.own = bounds, coefficients, own
        self.nats_M, self.seen_M = (torch.zeros(M, dtype=torch.float64) for _ in range(2))
        # for the teacher and for the student at coefficient 1: positions revealed in the step, and masked before it
        self.revealed_M2, self.masked_M2 = (torch.zeros(M, 2, dtype=torch.float64) for _ in range(2))

    def judge_by(self, paths: list[TeacherPath], relaxed: list[RelaxedStart] | None) -> None:
        """Sets the paths of the next run, and how its canvases are relaxed."""
        self.paths, self.relaxed = paths, relaxed

    def record(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
        path = self._of_canvas(self.paths).to(x.sample_BL.device)
        self._measure(x, path)
        self.steps.score_coefficients[x.k] = self._coefficient(x, path)
        self.use_steps(self.steps)
        teacher_BL = path.before(self.bounds[x.k + 1], x.mask_token_id)
        if x.is_last:  # a canvas that follows must begin from the teacher's context
            return teacher_BL, torch.zeros(teacher_BL.shape, device=teacher_BL.device)
        next_BL = super().record(x)[0] if self.own else teacher_BL
        if self.relaxed is not None and (x.k == 0 or not self.own):
            next_BL = self.relaxed[self.canvas_index].fill(next_BL, x.logits_BLV.shape[-1], x.mask_token_id)
        return next_BL, torch.zeros(next_BL.shape, device=next_BL.device)

    def _measure(self, x: StepInput, path: TeacherPath) -> None:
        """The nats of the teacher's tokens where both canvases are masked."""
        judged_BL = x.masked_BL & (path.step_BL >= self.bounds[x.k])
        # under an exchangeable order, all masked positions have the same expectation as those revealed next
        if not ORDERS[self.config.order].exchangeable:
            judged_BL &= path.step_BL < self.bounds[x.k + 1]
        row_R, position_R = judged_BL.nonzero(as_tuple=True)
        nats_R = cross_entropy(x.logits_BLV, row_R, position_R, path.final_BL[row_R, position_R], x.mask_token_id)
        self.nats_M[x.k] += float(nats_R.sum())
        self.seen_M[x.k] += len(row_R)

    def _coefficient(self, x: StepInput, path: TeacherPath) -> float:
        if self.coefficients is not None:
            return float(self.coefficients[x.k])
        if x.is_last:  # it reveals all that is left
            return 1.0
        start, end = self.bounds[x.k : x.k + 2]
        ours = self.plan.score_sums(x).sum()
        weight = self.plan.solver.score_weight(self.noise, *self.steps.timesteps[x.k : x.k + 2])
        teachers = (path.step_BL >= start) & (path.step_BL < end)
        self.revealed_M2[x.k] += torch.stack([teachers.sum().double(), weight * ours]).cpu()
        self.masked_M2[x.k] += torch.tensor([int((path.step_BL >= start).sum()), int(x.masked_BL.sum())])
        revealed_2, masked_2 = self.workers.sum(self.revealed_M2[x.k]), self.workers.sum(self.masked_M2[x.k])
        teacher, student = (revealed_2 / masked_2.clamp(min=1)).tolist()
        return teacher / student if student else 1.0


@dataclass(frozen=True)
class LSDPlusOptions(RelaxationOptions):
    """Options of [`LSDPlus`]."""

    relaxation: float | None = relaxation_option(0.05)
    domain: str | None = option(
        None, "only for `variant` literal: with log_score its grid stays uniform", choices=("score", "log_score")
    )
    epochs: int = option(20, "grids to try for each NFE")
    variant: str = option(
        "interval", "interval; literal (eq. 8 as printed) and own_canvas are degenerate", choices=VARIANTS
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("epochs", self.epochs)


class LSDPlus(Method):
    """Learns times, and a coefficient of the score for each."""

    name = "lsd+"
    options = LSDPlusOptions

    def is_paired(self, options: LSDPlusOptions) -> bool:
        return options.variant == "literal"

    def learn(self, task: Task) -> LearnedSampler:
        """Learns steps and coefficients for each NFE of the config."""
        if task.options.variant == "literal":
            return literal(task)
        search = _GridSearch(task, teacher_paths(task))
        steps = {}
        for M in tqdm(task.config.nfe, desc="steps and coefficients", unit="NFE"):
            steps[M], objective, uniform = search.solve(M)
            _log_steps(task.log, M, steps[M], task.runs.network_calls, objective=objective, objective_uniform=uniform)
        return LearnedSampler(steps)

    def network_calls(self, recipe: Recipe) -> int:
        """At most `C (1 + batches (N + epochs * sum of the NFEs))`; `C (1 + batches N + that sum)` if `literal`."""
        canvases, teacher, students = recipe.plan.num_canvases, recipe.plan.num_steps, sum(recipe.config.nfe)
        if recipe.options.variant == "literal":
            return canvases * (1 + recipe.num_batches * teacher + students)
        return canvases * (1 + recipe.num_batches * (teacher + recipe.options.epochs * students))


def literal(task: Task) -> LearnedSampler:
    """Eq. 8 as printed, `E d(kappa_k s(x_{tau_k}, tau_k), ((1 - eps) / N) s*_k)`: for comparison, not for use.

    With an unnormalised distance (`domain` "score": generalised KL) the minimiser is
    `kappa_k = ((1 - eps) / N) sum s*_k / sum s_k`. If the scores agree, as those of any normalised denoiser do, it is
    a step of the teacher: the M steps end at `1 - M (1 - eps) / N`, far from eps, and the last has to reveal nearly
    everything. With a normalised distance (`domain` "log_score": KL of softmaxes) kappa cancels and has no
    gradient: the grid stays uniform. It takes one replay on the uniform grid, paired with the teacher.
    """
    eps = task.base.config.sampling_eps
    canvases = teacher_canvases(task)
    student, steps = PairedStudent.from_config(task.base.config), {}
    student.workers = task.workers
    for M in task.config.nfe:
        start = LearnedSteps.plain(task.base.steps_for(M).timesteps)
        sums = torch.full((M, 2), -math.inf, dtype=torch.float64)

        def compare(
            k: int, comparison: Comparison | MovesComparison, sums: torch.Tensor = sums
        ) -> tuple[float, float]:
            if comparison.count:
                sums[k] = torch.logaddexp(sums[k], sums.new_tensor(comparison.log_score_sums()))
            return 1.0, 1.0

        run_pair(task, student, start, canvases.at(M), task.sequences, compare)
        ratio = torch.where(sums[:, 1].isfinite(), (sums[:, 0] - sums[:, 1]).exp(), 1.0)
        kappa = (1 - eps) / task.plan.num_steps * ratio
        # no more time can be spent than there is: if the scores differ much, the steps end at eps
        kappa *= min(1.0, (1 - eps) / float(kappa.sum()))
        times = torch.cat([kappa.new_ones(1), 1 - kappa.cumsum(0)])
        steps[M] = start if task.options.domain == "log_score" else LearnedSteps.plain(times)
        _log_steps(task.log, M, steps[M], task.runs.network_calls)
    return LearnedSampler(steps)


class _GridSearch:
    """Searches for the best grid of M of the teacher's N times."""

    def __init__(self, task: Task, batches: list[list[TeacherPath]]):
        self.task, self.config, self.batches = task, task.config, batches
        base, plan = task.base, task.plan
        self.student, self.noise = IntervalStudent.from_config(base.config), base.noise
        self.student.workers = task.workers
        teacher = LSDScheduler.from_config(base.config, solver=self.task.recipe.teacher_solver)
        self.times = teacher.steps_for(plan.num_steps).timesteps
        steps = torch.cat([path.step_BL[path.masked_BL].cpu() for paths in batches for path in paths])
        counts = torch.bincount(steps.long(), minlength=plan.num_steps).double()
        canvases = task.num_sequences * plan.num_canvases
        self.revealed_N = task.workers.sum(counts) / canvases
        # with these, the network's mass does not decide how much is revealed
        self.by_noise = base.config.prediction_type == "logits" or base.config.count == "exact"

    def solve(self, M: int) -> tuple[LearnedSteps, float, float]:
        """The best grid that was tried, its objective, and that of the uniform grid, in nats per canvas."""
        N = len(self.revealed_N)
        state = self.task.progress.load(f"nfe-{M}") or {
            "bounds": torch.tensor([round(k * N / M) for k in range(M + 1)]),
            "nats": torch.zeros(N, dtype=torch.float64),
            "seen": torch.zeros(N, dtype=torch.float64),
            "objectives": torch.zeros(0, dtype=torch.float64),
            "converged": torch.tensor(False),
            "best.bounds": torch.zeros(M + 1, dtype=torch.long),
            "best.coefficients": torch.ones(M, dtype=torch.float64),
            "network_calls": torch.tensor(self.task.runs.network_calls),
        }
        self.task.runs.network_calls = int(state["network_calls"])
        while len(state["objectives"]) < self.task.options.epochs and not state["converged"]:
            bounds = state["bounds"].tolist()
            objective = self.replay(bounds)
            if not len(state["objectives"]) or objective < float(state["objectives"].min()):
                best = {"best.bounds": state["bounds"], "best.coefficients": self.student.steps.score_coefficients}
                state |= {key: tensor.clone() for key, tensor in best.items()}
            state["objectives"] = torch.cat([state["objectives"], torch.tensor([objective], dtype=torch.float64)])
            state["nats"][bounds[:-1]] += self.student.nats_M
            state["seen"][bounds[:-1]] += self.student.seen_M
            state["bounds"] = torch.tensor(self.propose(M, state["nats"], state["seen"]))
            state["converged"] = torch.tensor(state["bounds"].tolist() == bounds)
            state["network_calls"] = torch.tensor(self.task.runs.network_calls)
            self.task.progress.save(f"nfe-{M}", state)
        phi = state["best.coefficients"]
        steps = LearnedSteps(self.times[state["best.bounds"]], phi, torch.ones_like(phi))
        return steps, float(state["objectives"].min()), float(state["objectives"][0])

    def replay(self, bounds: list[int]) -> float:
        """Runs the student on all sequences; returns the cost of the teacher's tokens, in nats per canvas."""
        coefficients = self.coefficients(bounds) if self.by_noise else None
        self.student.follow(self.times[bounds], bounds, coefficients, self.task.options.variant == "own_canvas")
        for sequences, paths in zip(self.task.batches(), self.batches, strict=True):
            canvases = [(path.masked_BL, path.final_BL) for path in paths]
            self.student.judge_by(paths, relaxed_starts(canvases, sequences, self.task.recipe))
            self.task.runs.run(self.student, len(bounds) - 1, sequences)
        for name in ("nats_M", "seen_M"):
            setattr(self.student, name, self.task.workers.sum(getattr(self.student, name)))
        revealed = torch.stack([self.revealed_N[a:b].sum() for a, b in pairwise(bounds)])
        return float((revealed * self.student.nats_M / self.student.seen_M.clamp(min=1)).sum())

    def coefficients(self, bounds: list[int]) -> torch.Tensor:
        """Share of the masked positions that the teacher reveals in each step of the grid, over the student's own."""
        ours = self.reveal_probability(self.config.solver, self.times[bounds])
        phi = torch.where(ours > 0, self.teachers_shares(bounds) / ours, 1.0)
        phi[-1] = 1.0  # the last step reveals all that is left
        return torch.where((phi - 1).abs() < 1e-9, 1.0, phi)  # rounding

    def teachers_shares(self, bounds: list[int]) -> torch.Tensor:
        """Share of the masked positions that the teacher reveals in each step of the grid; it is measured if the
        teacher's solver has no such number.
        """
        solver, revealed_N = self.task.recipe.teacher_solver, self.revealed_N
        if not SOLVERS[solver].distillable:
            shares = [revealed_N[a:b].sum() / revealed_N[a:].sum().clamp(min=1e-9) for a, b in pairwise(bounds)]
            return torch.stack(shares)
        kept = 1 - self.reveal_probability(solver, self.times).clamp(0, 1)
        return torch.stack([1 - kept[a:b].prod() for a, b in pairwise(bounds)])

    def reveal_probability(self, solver: str, times: torch.Tensor) -> torch.Tensor:
        return SOLVERS[solver].reveal_probability(self.noise, times[:-1], times[1:])

    def propose(self, M: int, nats_N: torch.Tensor, seen_N: torch.Tensor) -> list[int]:
        """The best grid, given what is known about the cost of a token at each state, in nats."""
        (known,) = (seen_N > 0).nonzero(as_tuple=True)
        level = isotonic_decreasing(nats_N[known] / seen_N[known], seen_N[known])
        candidates = replay_states(len(nats_N), MAX_CANDIDATES)
        nats_G = _interpolate(candidates, known, level, len(nats_N))
        return StepErrorTable(nats_G[:, None] * self.revealed_N, candidates).solve(M)[0]


def _interpolate(at: torch.Tensor, known: torch.Tensor, level: torch.Tensor, end: int) -> torch.Tensor:
    """Interpolates geometrically between the known levels, and linearly from the last two of them to the end.

    Straight lines throughout would lie above a convex curve, and hide the gain between two states.
    """
    slope = (level[-1] - level[-2]) / (known[-1] - known[-2]) if len(known) > 1 else level.new_zeros(())
    levels = np.append(level.numpy(), float(level[-1] + slope * (end - known[-1])))
    floor = max(1e-3 * float(levels[0]), 1e-9)
    return torch.from_numpy(np.exp(np.interp(at.numpy(), [*known.tolist(), end], np.log(levels.clip(floor)))))


def _log_steps(log: Callable[..., None], M: int, steps: LearnedSteps, network_calls: int, **values: float) -> None:
    log(
        event="steps",
        nfe=M,
        **values,
        timesteps=steps.timesteps.tolist(),
        score_coefficients=steps.score_coefficients.tolist(),
        network_calls=network_calls,
    )
