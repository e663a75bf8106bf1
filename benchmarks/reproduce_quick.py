"""A tenth of the samples behind the tables of molecules, garments and sudoku, made again and compared.

    python benchmarks/reproduce_quick.py                                  # minutes on 2 cores of an AMD EPYC
    python benchmarks/reproduce_quick.py --record domains/molecules ...   # keeps what finished folders found

What is compared is a share: of valid molecules, of pictures that the classifier takes for the class asked for, of
puzzles that are solved. Distances depend on the number of samples, so they cannot be. Fisher's exact test decides
which shares differ by more than chance; all comparisons together raise a false alarm in at most 1 % of runs. Rows with
few calls come first. A run that was stopped goes on.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from pivot import newest_rows
from scipy.stats import fisher_exact

from lsd_sampler.cli.evaluate import main as lsd_eval
from lsd_sampler.evaluation.rows import Row, read_jsonl
from lsd_sampler.evaluation.tables import format_table


RECORD = Path(__file__).with_name("reproduction_rows.json")
FALSE_ALARMS = 0.01
SEED = 100_000  # of noise that no table has seen
SHARES = {"molecules": "valid", "garments": "class_accuracy", "sudoku": "right_share"}
MODELS = {
    "molecules": ["--model", "models/molecules", "--molecules"],
    "garments": ["--model", "models/garments"],
    "sudoku": ["--model", "models/sudoku", "--tasks", "sudoku:clues=30"],
}
# `lsd-eval` asks for real molecules; the share of valid ones does not depend on them
REFERENCE = (
    "CCO CC(=O)O CCN c1ccccc1 Cc1ccccc1 Oc1ccccc1 Nc1ccccc1 c1ccncc1 CC(C)=O CCOC(C)=O CNC CC#N C1CCCCC1 C1CCOCC1"
    " CC(=O)Nc1ccc(O)cc1 CC(=O)Oc1ccccc1C(=O)O"
)
KEPT = ("sampler", "nfe", "temperature", "guidance_scale", "num_samples")


def record(folders: list[Path]) -> None:
    """Writes the shares of finished folders, whose names are domains, beside those of others."""
    rows = json.loads(RECORD.read_text()) if RECORD.exists() else []
    for folder in folders:
        key = SHARES[folder.name]
        rows = [row for row in rows if row["domain"] != folder.name]
        for row in newest_rows(folder):
            rows.append({"domain": folder.name, **{name: row.get(name) for name in KEPT}, "share": row[key]})
    RECORD.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def made_again(rows: list[Row], args: argparse.Namespace) -> Iterator[tuple[Row, Row]]:
    """Pairs of a row that was recorded and the same with new noise, those with few calls first."""

    def settings(row: Row) -> Any:
        return row["nfe"], row["domain"], row["temperature"], row["guidance_scale"] or 0.0

    args.output_dir.mkdir(parents=True, exist_ok=True)
    reference = args.output_dir / "reference.smi"
    reference.write_text(REFERENCE.replace(" ", "\n") + "\n")
    for (nfe, domain, temperature, guidance), group in groupby(sorted(rows, key=settings), settings):
        some = list(group)
        # learned samplers are folders of `models`
        plain = [row["sampler"] for row in some if not Path("models", row["sampler"]).is_dir()]
        learned = [f"models/{row['sampler']}" for row in some if row["sampler"] not in plain]
        out = args.output_dir / f"{domain}-{temperature}-{guidance}"
        command = [*MODELS[domain], "--nfe", str(nfe), "--temperatures", str(temperature), "--seed", str(SEED)]
        command += ["--num-samples", str(max(1, some[0]["num_samples"] // args.part)), "--headline-limit", "1"]
        command += ["--guidance-scale", str(guidance)] if some[0]["guidance_scale"] is not None else []
        command += ["--reference", str(reference)] if domain == "molecules" else []
        command += ["--baselines", *plain] + (["--sampler", *learned] if learned else [])
        if lsd_eval([*command, "--resume", "--output-dir", str(out)]):
            raise SystemExit(f"lsd-eval failed: {' '.join(command)}")
        found = {(row["sampler"], row["nfe"]): row for row in read_jsonl(out / "metrics.jsonl")}
        yield from ((row, found[row["sampler"], nfe]) for row in some)


def compared(row: Row, again: Row) -> Row:
    share = again[SHARES[row["domain"]]]
    counts = [(round(s * n), n) for s, n in ((row["share"], row["num_samples"]), (share, again["num_samples"]))]
    test: Any = fisher_exact([[right, n - right] for right, n in counts])
    return {**row, "again": share, "p": float(test[1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--record", type=Path, nargs="+", metavar="FOLDER", help="output folders of benchmarks/domains.sh"
    )
    parser.add_argument("--domains", nargs="+", choices=list(SHARES), default=list(SHARES))
    parser.add_argument("--nfe", type=int, nargs="+", help="only these numbers of calls")
    parser.add_argument("--part", type=int, default=10, help="one sample for so many")
    parser.add_argument("--output-dir", type=Path, default=Path("reproduce-quick"))
    args = parser.parse_args()
    if args.record:
        return record(args.record)
    rows = [row for row in json.loads(RECORD.read_text()) if row["domain"] in args.domains]
    rows = [row for row in rows if args.nfe is None or row["nfe"] in args.nfe]
    table = [compared(row, again) for row, again in made_again(rows, args)]
    columns = {name: name for name in ("domain", "sampler", "nfe", "share", "again", "p")}
    print(format_table(table, columns, digits=4))
    differ = [row for row in table if row["p"] < FALSE_ALARMS / len(table)]
    for row in differ:
        print(f"{row['domain']}, {row['sampler']}, {row['nfe']} calls: differs by more than chance.")
    print(f"{len(differ)} of {len(table)} shares differ by more than chance.")
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
