"""lsd: coefficients of the score or the log-score (https://huggingface.co/papers/2509.19962, eq. 5-6, algorithm 2).

Teacher and student run with the same noise. At each of the student's times the teacher's prediction, at the teacher's
canvas, is compared with the student's, at the student's own, over positions that are masked in both; there is no
gradient through the draws. As the student's canvas depends on earlier coefficients only, the coefficients are solved
one after another, in closed form (score) or by Newton (log-score).

The pipeline runs once with both: the first half of the batch replays the teacher's canvases, the second half is the
student.
"""

import math
from dataclasses import dataclass, replace

import torch
from tqdm.auto import tqdm

from ...denoisers.sizes import ModelSize
from ...learned.description import Description, Records, numbers
from ...sampling.learned_numbers import LearnedSampler, LearnedSteps
from ...sampling.solvers import SOLVERS
from ...scheduling_lsd import LSDScheduler
from ...support.validation import check_number
from ..method import Method
from ..options import check_positive, option
from ..paired_student import PairedStudent, run_pair
from ..recipe import Recipe
from ..relaxation import RelaxationOptions, relaxation_option
from ..shared_options import SharedOptions
from ..student_comparison import Comparison
from ..task import Task
from ..teacher_canvases import teacher_canvases


MIN_COEFFICIENT = 1e-6


@dataclass(frozen=True)
class LSDOptions(RelaxationOptions):
    """Options of [`LSD`]."""

    relaxation: float | None = relaxation_option(0.0)
    domain: str | None = option(
        None,
        "what the coefficients multiply; default: score if the model's `prediction_type` is log_score, else log_score",
        choices=("score", "log_score"),
    )
    optimizer: str = option("exact", "exact (closed form or Newton) or adam", choices=("exact", "adam"))
    learning_rate: float = option(1e-3, "learning rate of adam")
    adam_batch_size: int = option(1, "sequences per gradient step of adam")
    epochs: int = option(20, "passes of adam over the sequences")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("learning_rate", self.learning_rate, low=0, open_ends=True)
        for name in ("adam_batch_size", "epochs"):
            check_positive(name, getattr(self, name))


class LSD(Method):
    """Learns a coefficient for each step, on the base grid."""

    name = "lsd"
    options = LSDOptions
    needs_mask = False
    learns_coefficients = True

    def is_paired(self, options: LSDOptions) -> bool:
        return True

    def learn(self, task: Task) -> LearnedSampler:
        """Learns the coefficients for each NFE of the config, on the base grid."""
        domain = _domain(task.base, task.options)
        if task.options.optimizer == "adam" and task.workers.size > 1:
            raise ValueError("`optimizer` 'adam' makes a step for every few sequences: use one process, or 'exact'.")
        canvases = teacher_canvases(task)
        student, steps = PairedStudent.from_config(task.base.config), {}
        student.workers = task.workers
        for M in tqdm(task.config.nfe, desc="coefficients", unit="NFE"):
            start = LearnedSteps.plain(task.base.steps_for(M).timesteps)
            paths = canvases.at(M)
            learn = _learn_exactly if task.options.optimizer == "exact" else _learn_with_adam
            done = task.progress.load(f"nfe-{M}")
            if done is None:
                steps[M] = learn(task, student, start, paths, domain)
                numbers = {name: value for name, value in vars(steps[M]).items() if isinstance(value, torch.Tensor)}
                task.progress.save(f"nfe-{M}", {**numbers, "network_calls": torch.tensor(task.runs.network_calls)})
            else:
                task.runs.network_calls = int(done.pop("network_calls"))
                steps[M] = LearnedSteps(done["timesteps"], done["score_coefficients"], done["log_score_coefficients"])
            task.log(
                event="coefficients",
                nfe=M,
                domain=domain,
                score_coefficients=steps[M].score_coefficients.tolist(),
                log_score_coefficients=steps[M].log_score_coefficients.tolist(),
                network_calls=task.runs.network_calls,
            )
        return LearnedSampler(steps)

    def network_calls(self, recipe: Recipe) -> int:
        """`C (1 + batches N + sum of the NFEs)`; with Adam `updates` times the sum."""
        updates = recipe.options.epochs * -(-recipe.num_sequences // recipe.options.adam_batch_size)
        passes = updates if recipe.options.optimizer == "adam" else 1
        # the canvases of a teacher that masks tokens again are recorded in one run of all sequences
        batches = recipe.num_batches if SOLVERS[recipe.teacher_solver].distillable else 1
        return recipe.plan.num_canvases * (1 + batches * recipe.plan.num_steps + passes * sum(recipe.config.nfe))

    def memory(self, size: ModelSize, recipe: Recipe) -> dict[str, int]:
        memory = super().memory(size, recipe)
        if (recipe.options.domain or _default_domain(size.prediction_type)) == "log_score":
            # the copy of the student's logits that is kept while a coefficient is solved for
            memory["logits"] += 5 * recipe.num_sequences * recipe.plan.num_masked * size.columns
        return memory

    def batch_flag(
        self, config: SharedOptions, options: LSDOptions, num_rows: int, num_processes: int = 1
    ) -> tuple[str, int]:
        share = min(config.batch_size, config.most_sequences // num_processes)
        if options.optimizer == "adam" and num_rows == 2 * options.adam_batch_size != share:
            return "--adam-batch-size", options.adam_batch_size
        return super().batch_flag(config, options, num_rows, num_processes)

    def describe(self, learned: LearnedSampler, records: Records) -> Description:
        plain = super().describe(learned, records)
        coefficients = [r for r in records if r["event"] == "coefficients"]
        if not coefficients:
            return plain
        domain = coefficients[0]["domain"]
        key = f"{domain}_coefficients"
        values = {r["nfe"]: numbers(r[key]) for r in coefficients}
        return replace(
            plain,
            gain=f"one learned coefficient of the {domain.replace('_', '-')} per step, on the uniform grid.",
            heading=("network calls", f"`{key}`"),
            rows=tuple((str(M), text) for M, text in values.items()),
            lines=tuple(f"{M:4d} calls  {key}: {text}" for M, text in values.items()),
        )


def _domain(base: LSDScheduler, options: LSDOptions) -> str:
    has_mask = base.config.corruption == "absorbing"
    if options.domain == "log_score" and not has_mask:
        raise ValueError("`domain` 'log_score' is for absorbing noise: without a mask use 'score'.")
    return options.domain or (_default_domain(base.config.prediction_type) if has_mask else "score")


def _default_domain(prediction_type: str) -> str:
    return "score" if prediction_type == "log_score" else "log_score"


def _learn_exactly(
    task: Task,
    student: PairedStudent,
    start: LearnedSteps,
    paths: list[list[torch.Tensor]],
    domain: str,
) -> LearnedSteps:
    """One run, in which each coefficient is solved at its step and pooled over the canvases so far."""
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
    adam = _Adam(domain, M, task.options.learning_rate)
    shuffle = torch.Generator().manual_seed(task.config.seed)
    first, stored = 0, task.progress.load(f"adam-{M}")
    if stored is not None:
        first, task.runs.network_calls = int(stored["epochs"]), int(stored["network_calls"])
        shuffle.set_state(stored["shuffle"])
        adam.load(stored)
    for epoch in range(first, task.options.epochs):
        for sequences in torch.randperm(task.num_sequences, generator=shuffle).split(task.options.adam_batch_size):
            run_pair(task, student, start, paths, sequences.tolist(), adam)
            adam.update()
        counters = {"epochs": torch.tensor(epoch + 1), "network_calls": torch.tensor(task.runs.network_calls)}
        task.progress.save(f"adam-{M}", {**adam.tensors(), **counters, "shuffle": shuffle.get_state()})
    pairs = [adam.coefficients(k) for k in range(M)]
    phi, beta = (torch.tensor(c, dtype=torch.float64) for c in zip(*pairs, strict=True))
    return LearnedSteps(start.timesteps, phi, beta)


class _Adam:
    """Adam on the coefficients, which stay at 0 or above. A call adds gradients; `update` makes a step."""

    def __init__(self, domain: str, M: int, learning_rate: float):
        self.domain = domain
        self.values = torch.ones(M, dtype=torch.float64)
        self.gradient = self.values.grad = torch.zeros_like(self.values)
        self.optimizer = torch.optim.Adam([self.values], lr=learning_rate)
        # one scale for all sequences, so that they count by their scores
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
        """The tensors that `load` needs to resume."""
        state = self.optimizer.state_dict()["state"][0]
        return {"values": self.values, "scale": self.scale, **{f"adam.{name}": state[name] for name in state}}

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        self.values.copy_(tensors["values"])
        self.scale.copy_(tensors["scale"])
        whole = self.optimizer.state_dict()
        whole["state"] = {0: {name.split(".")[1]: t for name, t in tensors.items() if name.startswith("adam.")}}
        self.optimizer.load_state_dict(whole)
