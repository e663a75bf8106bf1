"""How much further every other sampler is from real data than a given one, from a finished `lsd-eval` folder.

python benchmarks/leads.py reproduction/verdict-all books-default

Intervals are by a paired bootstrap over samples, at 95 % each.
"""

import argparse
import json
from pathlib import Path

from pivot import newest_rows

from lsd_sampler.evaluation.tables import format_table
from lsd_sampler.evaluation.verdict import leads


HEADINGS = {"nfe": "NFE", "sampler": "sampler", "lead": "further by", "low": "low", "high": "high", "temp": "temp."}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an --output-dir of lsd-eval")
    parser.add_argument("sampler", help="a sampler in it")
    args = parser.parse_args()
    key = json.loads((args.folder / "summary.json").read_text())["verdict"]
    rows = newest_rows(args.folder)
    temperatures = {(row["sampler"], row["nfe"]): row["temperature"] for row in rows}
    table = [
        {"nfe": w.nfe, "sampler": w.second, "lead": w.lead, "low": w.low, "high": w.high}
        | {"temp": temperatures[w.second or "", w.nfe]}
        for w in leads(rows, args.sampler, key)
    ]
    if not table:
        raise SystemExit(f"{args.folder} has no sampler {args.sampler!r} beside others.")
    print(format_table(table, HEADINGS, digits=4))


if __name__ == "__main__":
    main()
