"""Constants of solvers: `solver_options` of a scheduler's config."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...support.validation import check_choice, check_number


@dataclass(frozen=True)
class Option:
    """The default of a constant, and its possible values: numbers in a range, or some choices."""

    default: Any
    low: float = -math.inf
    high: float = math.inf
    open_ends: bool = False
    choices: tuple[Any, ...] = ()

    def read(self, name: str, value: Any) -> Any:
        """The value, as JSON holds it.

        Raises:
            ValueError: if it is not a possible value; the message names it by `name`.
        """
        if self.choices:
            check_choice(name, value, self.choices)
            return value
        integer = isinstance(self.default, int)
        check_number(name, value, integer=integer, low=self.low, high=self.high, open_ends=self.open_ends)
        return int(value) if integer else float(value)


def read_options(solver: str, options: Mapping[str, Option], given: Any) -> dict[str, Any]:
    """All constants of a solver: those that are given, and the defaults of the others.

    Raises:
        ValueError: for an unknown name, or a value out of range.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"`solver_options` must be a dict of names and values, got {given!r}.")
    for name in given or {}:
        if name not in options:
            known = f"has only {sorted(options)}" if options else "has none"
            raise ValueError(f"`solver_options` holds {name!r}, but the solver {solver!r} {known}.")
    return {
        name: option.read(f"solver_options[{name!r}]", (given or {}).get(name, option.default))
        for name, option in options.items()
    }
