"""One table for each metric of an `lsd-eval` folder: a line for each sampler, a column for each number of calls.

python benchmarks/pivot.py reproduction/oracle reverse_kl bigram_entropy
"""

import argparse
import json
from pathlib import Path
from typing import Any

from lsd_sampler.evaluation.glossary import METRICS
from lsd_sampler.evaluation.rows import check_columns
from lsd_sampler.evaluation.tables import cell, format_table


def pivot(summary: dict[str, Any], key: str, digits: int, interval: bool) -> str:
    """The judged rows of a `summary.json`, and its floor.

    Args:
        key (`str`): the metric.
        digits (`int`): decimals.
        interval (`bool`): whether to add half the width of its bootstrap interval, where it has one.
    """
    rows, calls = [*summary["rows"], *([summary["floor"]] if summary["floor"] else [])], set()
    lines: dict[str, dict[str, Any]] = {}
    for row in rows:
        column = "any" if row["nfe"] is None else f"{row['nfe']:d}"
        calls |= {row["nfe"]} - {None}
        text = cell(row.get(key), digits)
        if interval and row.get(f"{key}_high") is not None:
            text += f" ± {(row[f'{key}_high'] - row[f'{key}_low']) / 2:.{digits}f}"
        lines.setdefault(row["sampler"], {"sampler": row["sampler"]})[column] = text
    columns = {"sampler": METRICS[key].heading if key in METRICS else key}
    columns |= {f"{nfe:d}": f"{nfe:d} calls" for nfe in sorted(calls)} | {"any": "real"}
    return format_table(list(lines.values()), columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an --output-dir of lsd-eval")
    parser.add_argument("keys", nargs="+", help="metrics: names in its summary.json")
    parser.add_argument("--digits", type=int, default=3)
    parser.add_argument("--interval", action="store_true", help="add half the width of 95 %% bootstrap intervals")
    args = parser.parse_args()
    check_columns(args.keys)
    summary = json.loads((args.folder / "summary.json").read_text())
    print("\n\n".join(pivot(summary, key, args.digits, args.interval) for key in args.keys))


if __name__ == "__main__":
    main()
