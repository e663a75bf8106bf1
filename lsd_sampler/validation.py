"""Checks of arguments that come from users or from files."""

import math
import numbers
from collections.abc import Sequence
from typing import Any


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raises `ValueError`, naming the argument, unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {list(choices)}, got {value!r}.")


def check_number(
    name: str,
    value: Any,
    *,
    integer: bool = False,
    optional: bool = False,
    low: float = -math.inf,
    high: float = math.inf,
    open_ends: bool = False,
) -> None:
    """Raises `ValueError`, naming the argument, unless the value is a finite number of that kind and range."""
    if optional and value is None:
        return
    kind: Any = numbers.Integral if integer else numbers.Real
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    inside = is_number and math.isfinite(value) and low <= value <= high
    if not inside or (open_ends and value in (low, high)):
        what = "an integer" if integer else "a finite number"
        interval = f"({low}, {high})" if open_ends else f"[{low}, {high}]"
        raise ValueError(f"`{name}` must be {what} in {interval}, got {value!r}.")
