"""Checks of arguments that come from users or from files."""

import difflib
import math
import numbers
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest one, if any is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raises `ValueError`, naming the argument, unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {list(choices)}, got {value!r}.")


def check_text(name: str, value: Any) -> None:
    """Raises `ValueError`, naming the argument, unless the value is a text or None."""
    if value is not None and not isinstance(value, str):
        raise ValueError(f"`{name}` must be a text or None, got {value!r}.")


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
    """Raises `ValueError`, naming the argument, unless the value is a number of that kind and range, and fits into 64
    bits.
    """
    if optional and value is None:
        return
    kind: Any = numbers.Integral if integer else numbers.Real
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    largest = 2**63 - 1 if integer else sys.float_info.max
    inside = is_number and abs(value) <= largest and low <= value <= high
    if not inside or (open_ends and value in (low, high)):
        what = "an integer" if integer else "a finite number"
        interval = f"({low}, {high})" if open_ends else f"[{low}, {high}]"
        raise ValueError(f"`{name}` must be {what} in {interval}, got {value!r}.")


def check_float(tensor: torch.Tensor, where: str) -> None:
    """Raises `ValueError`, naming `where`, unless all entries are finite floating-point numbers."""
    if not tensor.is_floating_point():
        raise ValueError(f"{where} must be floating point, got {tensor.dtype}.")
    # the extremes are NaN if anything is; no copy of the tensor is made
    if tensor.numel() and not all(math.isfinite(extreme) for extreme in tensor.detach().double().aminmax()):
        raise ValueError(f"{where} holds NaN or infinite values.")
