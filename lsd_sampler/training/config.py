"""The options of a distillation: one frozen dataclass for Python and the command line."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..orders import ORDERS
from ..registry import Registry
from ..scheduling_lsd import COUNTS
from ..solvers import SOLVERS


METHODS: Registry = Registry("method")
"""Training methods, `(runs: PipelineRuns, config: DistillConfig, log) -> LearnedSampler`; filled by their modules."""


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class DistillConfig:
    """Options of [`distill`]. Every field is also a flag of `lsd-train`.

    Raises:
        ValueError: for an option out of range; the message names it.
    """

    method: str = _option("path_kl", "training method: path_kl, lsd")
    solver: str = _option("tweedie", "base solver of teacher and student")
    order: str | None = _option(None, "order of revealing; default: halton for path_kl, random for lsd")
    count: str = _option("exact", "exact or bernoulli")
    nfe: tuple[int, ...] = _option((4, 8, 16, 32, 64), "numbers of network calls to make a sampler for")
    teacher_steps: int = _option(1024, "steps of the teacher (at most one per token, where more cannot differ)")
    num_sequences: int = _option(64, "teacher sequences to learn from")
    batch_size: int = _option(64, "sequences per network call (lsd compares all at once)")
    num_states: int = _option(128, "path_kl: states at which a step may begin, at most")
    domain: str | None = _option(None, "lsd: score or log_score; default: score for log_score models, else log_score")
    optimizer: str = _option("exact", "lsd: exact (closed form or Newton) or adam")
    learning_rate: float = _option(1e-3, "lsd with adam: learning rate")
    adam_batch_size: int = _option(1, "lsd with adam: sequences per gradient step")
    epochs: int = _option(20, "lsd with adam: passes over the sequences")
    seed: int = _option(0, "of the teacher's noise")

    def __post_init__(self) -> None:
        METHODS[self.method]
        if not SOLVERS[self.solver].distillable:
            raise ValueError(
                f"`solver` {self.solver!r} is a baseline, and nothing can be learned for it. Use one of"
                f" {distillable_solvers()}."
            )
        object.__setattr__(self, "nfe", _sorted_nfe(self.nfe))
        if self.order is None:
            object.__setattr__(self, "order", "halton" if self.method == "path_kl" else "random")
        if ORDERS[self.resolved_order].looks_at_logits:
            raise ValueError(
                f"`order` {self.order!r} looks at the logits; teacher paths can only be replayed for orders that do"
                f" not. Use one of {[name for name in ORDERS.names() if not ORDERS[name].looks_at_logits]}."
            )
        for name, choices in (
            ("count", COUNTS),
            ("domain", (None, "score", "log_score")),
            ("optimizer", ("exact", "adam")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` must be one of {list(choices)}, got {getattr(self, name)!r}.")
        for name in ("teacher_steps", "num_sequences", "batch_size", "num_states", "epochs", "adam_batch_size"):
            _check_positive(name, getattr(self, name))
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
            raise ValueError(f"`seed` must be an integer >= 0, got {self.seed!r}.")
        rate = self.learning_rate
        if not isinstance(rate, int | float) or isinstance(rate, bool) or not math.isfinite(rate) or rate <= 0:
            raise ValueError(f"`learning_rate` must be a finite number > 0, got {rate!r}.")

    @property
    def resolved_order(self) -> str:
        assert self.order is not None  # filled in by __post_init__
        return self.order

    def teacher_steps_for(self, num_masked: int, time_conditioned: bool) -> int:
        """The teacher's steps where so many positions are masked; at least the largest NFE.

        With exact counts a time-free network gains nothing from more steps than tokens.
        """
        steps = self.teacher_steps
        if not time_conditioned and self.count == "exact":
            steps = min(steps, num_masked)
        return max(steps, self.nfe[-1])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "nfe": list(self.nfe)}


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


def _check_positive(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, got {value!r}.")
