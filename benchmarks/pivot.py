"""One table for each metric of `lsd-eval` folders: a line for each sampler, a column for each number of calls.

python benchmarks/pivot.py reproduction/oracle --metrics reverse_kl bigram_entropy
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lsd_sampler.evaluation.comparison import SWEEP_SEED
from lsd_sampler.evaluation.metric_sets import known_columns
from lsd_sampler.evaluation.rows import Row, check_columns, read_jsonl
from lsd_sampler.evaluation.tables import cell, format_table


def judged_rows(folders: Sequence[Path]) -> list[Row]:
    """All rows of these folders but those that temperatures were chosen on; then the real data of the first."""
    rows = [row for folder in folders for row in _judged(folder)]
    floor = json.loads((folders[0] / "summary.json").read_text())["floor"]
    return [*rows, *([floor] if floor else [])]


def newest_rows(folder: Path) -> list[Row]:
    """The judged rows of a folder, one for each sampler and number of calls: a row may have been measured again."""
    return list({(row["sampler"], row["nfe"]): row for row in _judged(folder)}.values())


def _judged(folder: Path) -> list[Row]:
    return [row for row in read_jsonl(folder / "metrics.jsonl") if row["seed"] < SWEEP_SEED]


def over(rows: Sequence[Row], key: str, base: str) -> list[Row]:
    """The rows with the metric divided by that of `base` at the same number of calls.

    Raises:
        ValueError: if `base` has no row at one of the numbers of calls.
    """
    of_base = {row["nfe"]: row[key] for row in rows if row["sampler"] == base}
    judged = [row for row in rows if row["nfe"] is not None]
    if missing := sorted({row["nfe"] for row in judged} - set(of_base)):
        raise ValueError(f"`--over {base}`: it has no row at {missing} calls.")
    return [{"sampler": row["sampler"], "nfe": row["nfe"], key: row[key] / of_base[row["nfe"]]} for row in judged]


def pivot(rows: Sequence[Row], key: str, digits: int, interval: bool) -> str:
    """The table of one metric.

    Args:
        rows: as from `judged_rows`.
        key (`str`): the metric.
        digits (`int`): decimals.
        interval (`bool`): whether to add half the width of its bootstrap interval, where it has one.
    """
    lines: dict[str, dict[str, Any]] = {}
    for row in rows:
        text = cell(row.get(key), digits)
        if interval and row.get(f"{key}_high") is not None:
            text += f" ± {(row[f'{key}_high'] - row[f'{key}_low']) / 2:.{digits}f}"
        line = lines.setdefault(row["sampler"], {"sampler": row["sampler"]})
        line["real" if row["nfe"] is None else str(row["nfe"])] = text
    calls = sorted({row["nfe"] for row in rows} - {None})
    known = known_columns()
    columns = {"sampler": known[key].heading if key in known else key}
    columns |= {str(nfe): f"{nfe} calls" for nfe in calls} | {"real": "real"}
    return format_table(list(lines.values()), columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="each an --output-dir of lsd-eval")
    parser.add_argument("--metrics", nargs="+", required=True, help="names in its summary.json")
    parser.add_argument("--digits", type=int, default=3)
    parser.add_argument("--interval", action="store_true", help="add half the width of 95 %% bootstrap intervals")
    parser.add_argument("--over", metavar="SAMPLER", help="divide by what this sampler has")
    args = parser.parse_args()
    check_columns(args.metrics)
    rows = judged_rows(args.folders)
    tables = {key: over(rows, key, args.over) if args.over else rows for key in args.metrics}
    print("\n\n".join(pivot(table, key, args.digits, args.interval) for key, table in tables.items()))


if __name__ == "__main__":
    main()
