"""The options that all training methods share."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..sampling.counts import COUNTS
from ..sampling.orders import ORDERS
from ..sampling.solvers import SOLVERS
from ..support.validation import check_number
from .options import check_choices, check_positive, option


COEFFICIENTS = ("two_sided", "plain")
PATHS = ("teacher", "data", "bootstrap")
NUM_SEQUENCES = {"teacher": 64, "data": 56, "bootstrap": 36}
"""Default numbers of sequences. Without a teacher, all passes together stay below a tenth of the paper's recipe for
one NFE, `64 * 1024 + 20 * 64 * 8` calls, with 128 states and 64 steps of the bootstrap.
"""
AFFORDABLE_STEPS = 256
"""A teacher with more steps is replaced by a bootstrap, unless it is asked for."""


def distillable_solvers() -> list[str]:
    """The solvers that times and coefficients can be learned for."""
    return [name for name in SOLVERS.names() if SOLVERS[name].distillable]


@dataclass(frozen=True)
class SharedOptions:
    """What can be chosen whatever the training method; [`DistillConfig`] adds the methods' own options."""

    method: str = option("", "training method")
    solver: str = option("tweedie", "base solver of teacher and student", choices=distillable_solvers)
    teacher_solver: str | None = option(
        None, "solver of the teacher; default: `solver`", choices=SOLVERS.names
    )  # fmt: skip
    order: str | None = option(
        None,
        "order of revealing; default: that of the method (halton or random), or the winner's",
        choices=ORDERS.names,
    )
    count: str = option("exact", "exact or bernoulli", choices=COUNTS)
    nfe: tuple[int, ...] = option((4, 8, 16, 32, 64), "numbers of network calls to make a sampler for", int)
    teacher_steps: int = option(1024, "steps of the teacher (at most one per token if more would make no difference)")
    num_sequences: int | None = option(
        None, "sequences to learn from; default: 64 of the teacher, 56 of data, 36 bootstrapped", int
    )
    paths: str | None = option(
        None, "source of the sequences for methods that use only how they end: teacher, data or bootstrap; default: "
        "data if given, else the teacher if it has few steps, else bootstrap", choices=PATHS,
    )  # fmt: skip
    bootstrap_steps: int = option(64, "steps of the base solver that makes bootstrapped sequences")
    batch_size: int = option(64, "sequences per network call (a student paired with its teacher has all at once)")
    coefficients: str | None = option(
        None, "coefficients of the log-score: plain (1, or what the method learns) or two_sided (learned in addition, "
        "to bring samples closest to data or near-exact samples); default: two_sided if the method was chosen "
        "automatically and leaves them at 1, else plain",
        choices=COEFFICIENTS,
    )  # fmt: skip
    coefficient_sequences: int = option(128, "two_sided: samples at each of 14 points; twice as many for the verdict")
    reference_sequences: int = option(512, "two_sided: sequences to compare with if no data are given")
    held_out_sequences: int = option(128, "sequences to choose a method by; no method learns from them")
    seed: int = option(0, "seed of the teacher's noise")

    def check(self) -> None:
        """Raises `ValueError`, naming the option, for one that is out of range or does not go with another."""
        if not SOLVERS[self.solver].distillable:
            raise ValueError(
                f"`solver` {self.solver!r} is a baseline, and nothing can be learned for it. Use one of"
                f" {distillable_solvers()}."
            )
        if not SOLVERS[self.solver_of_teacher].distillable and self.base_order != "random":
            raise ValueError(
                f"`teacher_solver` {self.teacher_solver!r} chooses positions itself: it goes with `order` 'random',"
                f" got {self.order!r}."
            )
        check_choices(self)
        for name in ("teacher_steps", "bootstrap_steps", "batch_size"):
            check_positive(name, getattr(self, name))
        if self.num_sequences is not None:
            check_positive("num_sequences", self.num_sequences)
        for name, least in (("coefficient_sequences", 2), ("reference_sequences", 16), ("held_out_sequences", 2)):
            check_number(name, getattr(self, name), integer=True, low=least)
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
            raise ValueError(f"`seed` must be an integer >= 0, got {self.seed!r}.")

    @property
    def base_order(self) -> str:
        """The order of revealing. If it is to be chosen, this is the teacher's, that of the forward process."""
        return "random" if self.order is None else self.order

    @property
    def solver_of_teacher(self) -> str:
        """The solver of the teacher."""
        return self.teacher_solver or self.solver

    @property
    def most_sequences(self) -> int:
        """The largest number of sequences to learn from, while it is not known where they come from."""
        return self.num_sequences or NUM_SEQUENCES[self.paths or "teacher"]

    def teacher_steps_for(self, num_masked: int, time_conditioned: bool) -> int:
        """The teacher's steps where `num_masked` positions are masked; at least the largest NFE.

        With exact counts a time-free network gains nothing from more steps than tokens.
        """
        steps = self.teacher_steps
        is_plain = SOLVERS[self.solver_of_teacher].distillable
        if not time_conditioned and self.count == "exact" and is_plain:
            steps = min(steps, num_masked)
        return max(steps, self.nfe[-1])


def affordable_source(num_steps: int) -> str:
    """Where sequences come from by default, depending on the teacher's number of steps."""
    return "teacher" if num_steps <= AFFORDABLE_STEPS else "bootstrap"


def sorted_nfe(nfe: Any) -> tuple[int, ...]:
    """Numbers of network calls, in increasing order.

    Raises:
        ValueError: unless there is at least one and all are positive integers.
    """
    values = list(nfe) if isinstance(nfe, Iterable) and not isinstance(nfe, str) else None
    if not values:
        raise ValueError(f"`nfe` must name at least one number of network calls, such as (4, 8), got {nfe!r}.")
    for steps in values:
        check_positive("nfe", steps)
    return tuple(sorted(set(values)))
