"""Rows of an evaluation on disk: JSONL, one object a line. A likelihood is not kept without an entropy."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..support.atomic import replacing


Row = dict[str, Any]

# Metrics that can be bought with entropy. They are not shown, drawn or stored without an entropy beside them.
LIKELIHOOD_WORDS = ("nll", "perplexity", "ppl", "likelihood", "cross_entropy")


def check_columns(names: Iterable[str]) -> None:
    """Refuses a likelihood or a perplexity without an entropy beside it.

    Raises:
        ValueError: naming the column.
    """
    names = [name.lower() for name in names]
    likelihoods = [name for name in names if any(word in name for word in LIKELIHOOD_WORDS)]
    if likelihoods and not any("entropy" in name for name in names if name not in likelihoods):
        raise ValueError(f"`{likelihoods[0]}` must not be shown without an entropy: add an entropy column.")


def json_line(row: Mapping[str, Any]) -> str:
    """A row as one line of JSON; values that are not finite become null.

    Raises:
        ValueError: if it holds a likelihood and no entropy.
    """
    check_columns(row)
    return json.dumps({key: _plain(value) for key, value in row.items()}, ensure_ascii=False, allow_nan=False) + "\n"


def write_jsonl(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows, one JSON object a line, all or nothing. Values that are not finite become null.

    Raises:
        ValueError: if a row holds a likelihood and no entropy.
    """
    with replacing(path) as temporary:
        temporary.write_text("".join(map(json_line, rows)), encoding="utf-8")


def append_jsonl(path: str | Path, row: Mapping[str, Any]) -> None:
    """Appends one row and flushes it to disk.

    Raises:
        OSError: if it cannot be written whole, a full disk for example; the rows before it are as they were.
        ValueError: if it holds a likelihood and no entropy.
    """
    data = json_line(row).encode()
    try:
        with open(os.path.expanduser(path), "ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, f"A row could not be appended ({error.strerror})", str(path)) from error


def read_jsonl(path: str | Path) -> list[Row]:
    """Reads rows. A last line that was cut short (the writer was killed) is dropped.

    Raises:
        ValueError: if any other line is not a JSON object.
    """
    lines = Path(os.path.expanduser(path)).read_text(encoding="utf-8-sig", errors="replace").split("\n")
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line.strip() else None
        except json.JSONDecodeError:
            if number == len(lines):
                break
            raise ValueError(f"`{path}` line {number} is not JSON.") from None
        if row is not None:
            rows.append(row)
    return rows


def _plain(value: Any) -> Any:
    """Replaces numbers that are not finite, which JSON cannot express, by None."""
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
