"""The best sampler for each number of calls, and what is level with it, from finished `lsd-eval` folders.

    python benchmarks/verdicts.py domains/molecules domains/garments --ours molecules-default garments-default

Level is what is further away by no more than chance: the paired bootstrap interval of the difference, at 95 % each,
holds 0. "ours" says by how much one's own sampler is further away than the best, or how it leads.
"""

import argparse
import json
import sys
from collections.abc import Collection
from pathlib import Path

from pivot import newest_rows

from lsd_sampler.evaluation.rows import Row
from lsd_sampler.evaluation.tables import format_table
from lsd_sampler.evaluation.verdict import Winner, leads


HEADINGS = {
    "domain": "domain",
    "nfe": "NFE",
    "best": "best",
    "value": "value",
    "level": "level with it",
    "ours": "ours",
}


def verdicts(folder: Path, own: Collection[str]) -> list[Row]:
    key = json.loads((folder / "summary.json").read_text())["verdict"]
    rows = [row for row in newest_rows(folder) if f"{key}_replicates" in row]
    table: list[Row] = []
    for nfe in sorted({row["nfe"] for row in rows}):
        at_nfe = [row for row in rows if row["nfe"] == nfe]
        best = min(at_nfe, key=lambda row: row[key])
        behind = {lead.second: lead for lead in leads(at_nfe, best["sampler"], key)}
        level = [name for name, lead in behind.items() if lead.low is not None and lead.low <= 0]
        row = {"domain": folder.name, "nfe": nfe, "best": best["sampler"], "value": best[key]}
        table.append(row | {"level": ", ".join(map(str, level)) or "none", "ours": _of_ours(own, best, behind, level)})
    return table


def _of_ours(own: Collection[str], best: Row, behind: dict[str | None, Winner], level: Collection[str | None]) -> str:
    if best["sampler"] in own:
        return "best" if not level else "level"
    name = next((name for name in behind if name in own), None)
    if name is None:
        return "-"
    lead = behind[name]
    return "level" if name in level else f"behind by {lead.lead:.4g} ({lead.low:.4g} to {lead.high:.4g})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="output folders of lsd-eval")
    parser.add_argument("--ours", nargs="*", default=[], help="names of one's own samplers")
    args = parser.parse_args()
    table = [row for folder in args.folders for row in verdicts(folder, args.ours)]
    sys.stdout.write(format_table(table, HEADINGS, digits=4) + "\n")


if __name__ == "__main__":
    main()
