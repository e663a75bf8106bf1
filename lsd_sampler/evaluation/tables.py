"""Tables of evaluation rows: which columns, in which order, under which headings; and as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from .rows import check_columns


def format_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str] | Mapping[str, str] | None = None,
    *,
    digits: int = 3,
    markdown: bool = False,
) -> str:
    """An aligned table, one line for each row, without a final newline.

    Args:
        rows: dicts; a missing or None value is shown as "-".
        columns (*optional*): keys to show in order, or key -> heading. Default: all keys whose values are not lists.
        digits (`int`): decimals of floats; smaller non-zero values are shown as 1.2e-05.
        markdown (`bool`): with bars.

    Raises:
        ValueError: if `rows` is empty, or a likelihood or perplexity would be shown without an entropy.
    """
    if not rows:
        raise ValueError("`rows` must not be empty.")
    if columns is None:
        columns = list(dict.fromkeys(key for row in rows for key in row if not isinstance(row[key], list)))
    check_columns(columns)
    for row in rows:
        check_columns(key for key in columns if row.get(key) is not None)
    headings = list(columns.values()) if isinstance(columns, Mapping) else list(columns)
    cells = [headings] + [[cell(row.get(key), digits) for key in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(headings))]
    sides = ["<" if any(isinstance(row.get(key), str) for row in rows) else ">" for key in columns]
    lines = [[f"{cell:{side}{width}}" for cell, side, width in zip(x, sides, widths, strict=True)] for x in cells]
    if markdown:
        rule = [
            "-" * width if side == "<" else "-" * (width - 1) + ":" for side, width in zip(sides, widths, strict=True)
        ]
        return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(line).rstrip() for line in lines)


def cell(value: Any, digits: int = 3) -> str:
    """A value as tables show it: "-" for an unknown one."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.{digits}f}" if value == 0 or abs(value) >= 10**-digits else f"{value:.1e}"
    return str(value)
