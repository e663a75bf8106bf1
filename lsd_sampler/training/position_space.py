"""The family of choices that a search may use: all of it, or a part, to see what the rest is worth."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..sampling.dependence import LAYOUTS
from ..sampling.orders.adaptive import LEAST_NATS
from ..sampling.position_choice import BUDGETS, WEIGHTS
from ..support.validation import check_number


if TYPE_CHECKING:
    from .position_candidates import Candidate


FREE_BELOW = (LEAST_NATS, 0.01, 0.1, 0.3)
"""Thresholds, in nats, below which a position is free."""
_OF_LOGITS, _OF_PAIRS = WEIGHTS[:3], WEIGHTS[1:3]


@dataclass(frozen=True)
class PositionSpace:
    """What a search may use.

    Args:
        terms (`tuple[str, ...]`): terms of the score that may have a weight, of `WEIGHTS`.
        layouts (`tuple[str, ...]`): layouts of kappa to try, of `LAYOUTS`.
        budgets (`tuple[str, ...]`): what a share may be a share of, of `BUDGETS`.
        free_below (`tuple[float, ...]`): thresholds to try, in nats, ascending.
    """

    terms: tuple[str, ...] = WEIGHTS
    layouts: tuple[str, ...] = LAYOUTS
    budgets: tuple[str, ...] = BUDGETS
    free_below: tuple[float, ...] = FREE_BELOW

    @property
    def looks_at_pairs(self) -> bool:
        """Whether a term asks how positions depend on each other."""
        return any(term in self.terms for term in _OF_PAIRS)

    def admits(self, candidate: "Candidate") -> bool:
        """Whether a candidate keeps to it. Simple orders always do: what is found is compared with them."""
        if candidate.weights is None or candidate.is_simple:
            return True
        inside = all(term in self.terms or not candidate.weight(term) for term in WEIGHTS)
        return inside and candidate.budget in self.budgets and candidate.free_below in self.free_below

    def scores(self, weights: Iterable[tuple[float, ...]]) -> list[tuple[float, ...]]:
        """The weights without terms that are left out; each once, and only if it still looks at the logits."""
        kept = [
            tuple(value if term in self.terms else 0.0 for term, value in zip(WEIGHTS, each, strict=True))
            for each in weights
        ]
        return list(dict.fromkeys(each for each in kept if any(each[: len(_OF_LOGITS)])))

    def brought_in(self, candidates: Iterable["Candidate"]) -> list["Candidate"]:
        """Candidates that look at the logits, without what is left out; those that have another budget are dropped."""
        kept = []
        for each in candidates:
            free_below = each.free_below if each.free_below in self.free_below else self.free_below[0]
            for weights in self.scores([each.weights or ()]) if each.weights else ():
                kept.append(replace(each, weights=weights, free_below=free_below))
        return list(dict.fromkeys(filter(self.admits, kept)))


EVERYTHING = PositionSpace()


def checked_names(name: str, value: Any, known: Sequence[str]) -> tuple[str, ...]:
    """The names in the order of the known ones.

    Raises:
        ValueError: naming the option, unless there is at least one, and all are known.
    """
    given = _listed(value)
    if not given or any(each not in known for each in given):
        raise ValueError(f"`{name}` must be one or more of {list(known)}, got {value!r}.")
    return tuple(each for each in known if each in given)


def checked_thresholds(name: str, value: Any) -> tuple[float, ...]:
    """The thresholds in ascending order.

    Raises:
        ValueError: naming the option, unless there is at least one, and all are numbers of at least 0.
    """
    given = _listed(value)
    if not given:
        raise ValueError(f"`{name}` must be one or more numbers of nats, got {value!r}.")
    for each in given:
        check_number(name, each, low=0)
    return tuple(sorted({float(each) for each in given}))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else []
