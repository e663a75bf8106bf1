"""The best sampler for each number of calls, and what is level with it, from finished `lsd-eval` folders.

    python benchmarks/verdicts.py domains/molecules domains/garments --ours molecules-default garments-default

Folders joined by "+" are one domain: their seeds, numbers of samples and references are the same. Level is
what is further away by no more than chance: the paired bootstrap interval of the difference, at 95 % each, holds 0.
"ours" says by how much one's own sampler is further away than the best, or how it leads. Numbers of calls that it has
no row for are left out.
"""

import argparse
import json
import sys
from collections.abc import Collection, Sequence
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


def verdicts(folders: Sequence[Path], own: Collection[str]) -> list[Row]:
    """A row for each number of calls.

    Raises:
        ValueError: if the folders differ in verdict, reference or number of samples.
    """
    keys = {json.loads((folder / "summary.json").read_text())["verdict"] for folder in folders}
    rows = [
        row for folder in folders for row in newest_rows(folder) if any(f"{key}_replicates" in row for key in keys)
    ]
    if len(keys) > 1 or len({(row["num_samples"], row.get("yardstick")) for row in rows}) > 1:
        raise ValueError(f"{' and '.join(map(str, folders))} differ in verdict, reference or number of samples.")
    (key,) = keys
    table: list[Row] = []
    of_own = {row["nfe"] for row in rows if row["sampler"] in own}
    for nfe in sorted(of_own or {row["nfe"] for row in rows}):
        at_nfe = [row for row in rows if row["nfe"] == nfe]
        best = min(at_nfe, key=lambda row: row[key])
        behind = {lead.second: lead for lead in leads(at_nfe, best["sampler"], key)}
        level = [name for name, lead in behind.items() if lead.low is not None and lead.low <= 0]
        row = {"domain": folders[0].name, "nfe": nfe, "best": best["sampler"], "value": best[key]}
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
    parser.add_argument("folders", nargs="+", help="output folders of lsd-eval; those joined by + are one domain")
    parser.add_argument("--ours", nargs="*", default=[], help="names of one's own samplers")
    args = parser.parse_args()
    table = [row for text in args.folders for row in verdicts([Path(folder) for folder in text.split("+")], args.ours)]
    sys.stdout.write(format_table(table, HEADINGS, digits=4) + "\n")


if __name__ == "__main__":
    main()
