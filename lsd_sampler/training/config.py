"""The options of a distillation: one frozen dataclass for Python and the command line."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..sampling.counts import COUNTS
from ..sampling.orders import ORDERS
from ..sampling.solvers import SOLVERS
from ..support.registry import Registry
from ..support.validation import check_number


METHODS: Registry = Registry("method")
"""Training methods, `(task: Task) -> LearnedSampler`; filled by their modules."""
NETWORK_CALLS: Registry = Registry("method")
"""The network calls that each method makes, `(config, plan) -> int`; filled by their modules."""

COEFFICIENTS = ("two_sided", "plain")
PATHS = ("teacher", "data", "bootstrap")
NUM_SEQUENCES = {"teacher": 64, "data": 56, "bootstrap": 36}
"""Default numbers: without a teacher, all passes together stay below a tenth of the paper's recipe for one NFE,
`64 * 1024 + 20 * 64 * 8` calls, with 128 states and 64 steps of the bootstrap.
"""
AFFORDABLE_STEPS = 256
"""A teacher of more steps is replaced by a bootstrap, unless it is asked for."""
VARIANTS = ("interval", "own_canvas", "literal")
FILLERS = ("teacher", "random")
AUTO = "auto"
"""The method that takes the best of the others."""
MAX_JYS_STEPS = 512
"""Neighbouring times of a jys schedule lie at least two cells of its grid of 1,024 apart before it is refined."""


def _option(default: Any, help: str, type: type | None = None) -> Any:
    return field(default=default, metadata={"help": help, "type": type})


@dataclass(frozen=True)
class DistillConfig:
    """Options of [`distill`]. Every field is also a flag of `lsd-train`.

    Raises:
        ValueError: for an option out of range; the message names it.
    """

    method: str | None = _option(
        None, "training method: path_kl, lsd, lsd+, jys; default: auto, the best of `candidates` on held-out sequences"
    )
    solver: str = _option("tweedie", "base solver of teacher and student")
    teacher_solver: str | None = _option(None, "solver of the teacher, where it is another")
    order: str | None = _option(None, "order of revealing; default: auto: the winner's; path_kl: halton; else random")
    count: str = _option("exact", "exact or bernoulli")
    nfe: tuple[int, ...] = _option((4, 8, 16, 32, 64), "numbers of network calls to make a sampler for")
    teacher_steps: int = _option(1024, "steps of the teacher (at most one per token, where more cannot differ)")
    num_sequences: int | None = _option(
        None, "sequences to learn from; default: 64 of the teacher, 56 of data, 36 bootstrapped", int
    )
    paths: str | None = _option(
        None, "path_kl: sequences of the teacher, data or bootstrap; default: data if given, a teacher of few steps, "
        "else bootstrap",
    )  # fmt: skip
    bootstrap_steps: int = _option(64, "path_kl: steps of the base solver that makes bootstrapped sequences")
    batch_size: int = _option(64, "sequences per network call (lsd compares all at once)")
    num_states: int = _option(128, "path_kl: about so many states at which a step may begin (at most one per token)")
    domain: str | None = _option(None, "lsd: score or log_score; default: score for log_score models, else log_score")
    optimizer: str = _option("exact", "lsd: exact (closed form or Newton) or adam")
    learning_rate: float = _option(1e-3, "lsd with adam: learning rate")
    adam_batch_size: int = _option(1, "lsd with adam: sequences per gradient step")
    epochs: int = _option(20, "lsd with adam: passes over the sequences; lsd+: grids to try for each NFE")
    variant: str = _option("interval", "lsd+: interval; literal (eq. 8 as printed) and own_canvas are degenerate")
    relaxation: float | None = _option(
        None, "share of the student's canvas that it does not begin alone (default: 0.05 for lsd+, else 0)", float
    )
    relaxation_filler: str = _option("teacher", "what is put there: teacher (its final tokens) or random (tokens)")
    candidates: tuple[str, ...] = _option(
        ("path_kl:halton", "path_kl:random", "lsd:random"),
        "auto: what to choose from, METHOD:ORDER each; with `order` those of that order",
    )
    coefficients: str | None = _option(
        None, "of the log-score: two_sided (by a distance of samples from data or near-exact samples), plain (1, or "
        "the method's own); default: two_sided for auto where path_kl wins, else plain",
    )  # fmt: skip
    coefficient_sequences: int = _option(128, "two_sided: samples at each of 14 points; twice as many to judge by")
    reference_sequences: int = _option(512, "two_sided: sequences to compare with, where there are no data")
    held_out_sequences: int = _option(16, "auto: teacher sequences to choose by, which none of them learned from")
    seed: int = _option(0, "of the teacher's noise")

    def __post_init__(self) -> None:
        if self.method is None:
            object.__setattr__(self, "method", AUTO)
        METHODS[self.resolved_method]
        object.__setattr__(self, "candidates", _checked_candidates(self.candidates))
        if not SOLVERS[self.solver].distillable:
            raise ValueError(
                f"`solver` {self.solver!r} is a baseline, and nothing can be learned for it. Use one of"
                f" {distillable_solvers()}."
            )
        object.__setattr__(self, "nfe", _sorted_nfe(self.nfe))
        if self.order is None and self.method != AUTO:
            object.__setattr__(self, "order", "halton" if self.method == "path_kl" else "random")
        if not SOLVERS[self.resolved_teacher_solver].distillable and self.resolved_order != "random":
            raise ValueError(
                f"`teacher_solver` {self.teacher_solver!r} chooses positions itself: it goes with `order` 'random',"
                f" got {self.order!r}."
            )
        if self.relaxation is None and self.method != AUTO:
            object.__setattr__(self, "relaxation", 0.05 if self.method == "lsd+" else 0.0)
        check_number("relaxation", self.relaxation, optional=True, low=0, high=1)
        if self.resolved_relaxation and self.method not in (AUTO, "lsd", "lsd+"):
            raise ValueError(f"`relaxation` is of the methods 'lsd' and 'lsd+'; {self.method!r} has no student.")
        if ORDERS[self.resolved_order].looks_at_logits:
            raise ValueError(
                f"`order` {self.order!r} looks at the logits; teacher paths can only be replayed for orders that do"
                f" not. Use one of {[name for name in ORDERS.names() if not ORDERS[name].looks_at_logits]}."
            )
        for name, choices in (
            ("count", COUNTS),
            ("domain", (None, "score", "log_score")),
            ("optimizer", ("exact", "adam")),
            ("variant", VARIANTS),
            ("paths", (None, *PATHS)),
            ("coefficients", (None, *COEFFICIENTS)),
            ("relaxation_filler", FILLERS),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` must be one of {list(choices)}, got {getattr(self, name)!r}.")
        for name in ("teacher_steps", "bootstrap_steps", "batch_size", "num_states", "epochs", "adam_batch_size"):
            _check_positive(name, getattr(self, name))
        if self.num_sequences is not None:
            _check_positive("num_sequences", self.num_sequences)
        if self.paths in ("data", "bootstrap") and self.method not in (AUTO, "path_kl"):
            raise ValueError(f"`paths` {self.paths!r} goes with `method` 'path_kl': {self.method!r} needs a teacher.")
        for name, least in (("coefficient_sequences", 2), ("reference_sequences", 16)):
            check_number(name, getattr(self, name), integer=True, low=least)
        if self.coefficients == "two_sided" and self.method == "lsd":
            raise ValueError("`coefficients` 'two_sided' would replace those that `method` 'lsd' learns: use 'plain'.")
        check_number("held_out_sequences", self.held_out_sequences, integer=True, low=2)
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
            raise ValueError(f"`seed` must be an integer >= 0, got {self.seed!r}.")
        rate = self.learning_rate
        if not isinstance(rate, int | float) or isinstance(rate, bool) or not math.isfinite(rate) or rate <= 0:
            raise ValueError(f"`learning_rate` must be a finite number > 0, got {rate!r}.")
        unfit = [M for M in self.nfe if M & (M - 1) or M > MAX_JYS_STEPS]
        if self.method == "jys" and unfit:
            raise ValueError(f"`nfe` must be powers of two up to {MAX_JYS_STEPS} for `method` 'jys', got {unfit[0]}.")

    @property
    def resolved_method(self) -> str:
        """The training method."""
        assert self.method is not None  # filled in by __post_init__
        return self.method

    @property
    def resolved_order(self) -> str:
        """The order of revealing; of `auto` without one, its teacher's, which is that of the forward process."""
        return "random" if self.order is None else self.order

    @property
    def resolved_relaxation(self) -> float:
        """Share of the student's canvas that it does not begin alone."""
        return self.relaxation or 0.0

    @property
    def resolved_teacher_solver(self) -> str:
        """The solver of the teacher."""
        return self.teacher_solver or self.solver

    @property
    def resolved_num_sequences(self) -> int:
        """Sequences to learn from, where they come from the source that is asked for."""
        return self.num_sequences or NUM_SEQUENCES[self.paths or "teacher"]

    @property
    def is_paired(self) -> bool:
        """Whether teacher and student of all sequences run in one batch."""
        return self.method == "lsd" or (self.method == "lsd+" and self.variant == "literal")

    @property
    def num_batches(self) -> int:
        """Batches that the sequences make."""
        return -(-self.resolved_num_sequences // self.batch_size)

    def settled(self, num_steps: int, has_data: bool = False) -> "DistillConfig":
        """The same, with the source of path_kl's sequences decided.

        Args:
            num_steps (`int`): the teacher's, on each canvas.
            has_data (`bool`): whether there are real sequences.

        Raises:
            ValueError: if there are, and they are not wanted; or the other way round.
        """
        has_use = self.method in (AUTO, "path_kl")
        if has_data and not (has_use and self.paths in (None, "data")):
            other = f"`paths` {self.paths!r}" if has_use else f"`method` {self.method!r}"
            raise ValueError(f"`data` is for `method` 'path_kl' with `paths` 'data'; it has no use for {other}.")
        if self.paths == "data" and not has_data:
            raise ValueError("`paths` 'data' needs `data`: real sequences.")
        config = replace(self, paths="data") if has_data else self
        # of auto, each candidate decides
        return replace(config, paths=config.source(num_steps)) if self.method == "path_kl" else config

    def source(self, num_steps: int) -> str:
        """Where sequences come from, of which only the end counts: data, teacher or bootstrap.

        Args:
            num_steps (`int`): the teacher's, on each canvas.
        """
        return self.paths or ("teacher" if num_steps <= AFFORDABLE_STEPS else "bootstrap")

    def teacher_steps_for(self, num_masked: int, time_conditioned: bool) -> int:
        """The teacher's steps where so many positions are masked; at least the largest NFE.

        With exact counts a time-free network gains nothing from more steps than tokens.
        """
        steps = self.teacher_steps
        is_plain = SOLVERS[self.resolved_teacher_solver].distillable
        if not time_conditioned and self.count == "exact" and is_plain:
            steps = min(steps, num_masked)
        return max(steps, self.nfe[-1])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "nfe": list(self.nfe), "candidates": list(self.candidates)}


def distillable_solvers() -> list[str]:
    """The solvers that times and coefficients can be learned for."""
    return [name for name in SOLVERS.names() if SOLVERS[name].distillable]


def _sorted_nfe(nfe: Any) -> tuple[int, ...]:
    values = list(nfe) if isinstance(nfe, Iterable) and not isinstance(nfe, str) else None
    if not values:
        raise ValueError(f"`nfe` must name at least one number of network calls, such as (4, 8), got {nfe!r}.")
    for steps in values:
        _check_positive("nfe", steps)
    return tuple(sorted(set(values)))


def _checked_candidates(candidates: Any) -> tuple[str, ...]:
    names = list(candidates) if isinstance(candidates, Iterable) and not isinstance(candidates, str) else []
    for name in names or [candidates]:
        method, separator, order = name.partition(":") if isinstance(name, str) and names else ("", "", "")
        if not separator or method not in METHODS.names() or method == AUTO or order not in ORDERS.names():
            raise ValueError(
                f"`candidates` must each be METHOD:ORDER, such as 'path_kl:halton', got {name!r}. Methods:"
                f" {[known for known in METHODS.names() if known != AUTO]}, orders: {ORDERS.names()}."
            )
    return tuple(dict.fromkeys(names))


def _check_positive(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, got {value!r}.")
