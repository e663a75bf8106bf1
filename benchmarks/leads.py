"""How much further every other sampler is from real data than a given one, from a finished `lsd-eval` folder.

python benchmarks/leads.py reproduction/verdict-all books-default

Intervals are by a paired bootstrap over samples, at 95 % each.
"""

import argparse
import json
from pathlib import Path

from lsd_sampler.evaluation.comparison import SWEEP_SEED
from lsd_sampler.evaluation.rows import read_jsonl
from lsd_sampler.evaluation.tables import format_table
from lsd_sampler.evaluation.verdict import leads


HEADINGS = {"nfe": "NFE", "sampler": "sampler", "lead": "further by", "low": "low", "high": "high", "temp": "temp."}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an --output-dir of lsd-eval")
    parser.add_argument("sampler", help="a sampler in it")
    args = parser.parse_args()
    key = json.loads((args.folder / "summary.json").read_text())["verdict"]
    judged = [row for row in read_jsonl(args.folder / "metrics.jsonl") if row["seed"] < SWEEP_SEED]
    newest = {(row["sampler"], row["nfe"]): row for row in judged}  # a row may have been measured again
    table = [
        {"nfe": w.nfe, "sampler": w.second, "lead": w.lead, "low": w.low, "high": w.high}
        | {"temp": newest[w.second or "", w.nfe]["temperature"]}
        for w in leads(list(newest.values()), args.sampler, key)
    ]
    if not table:
        raise SystemExit(f"{args.folder} has no sampler {args.sampler!r} beside others.")
    print(format_table(table, HEADINGS, digits=4))


if __name__ == "__main__":
    main()
