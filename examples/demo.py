"""Few-step samplers in four domains: sudoku, molecules, garments and books. No network is needed.

    python examples/demo.py --output-dir demo-output
    python examples/demo.py --only sudoku books --quick

For sudoku it learns a sampler on the spot. For the others it takes those that come with the repository, as `lsd-train`
learned them. Each domain has a table of samplers, with 95 % intervals, and something to look at: grids, drawings,
pictures, text. `--quick` makes fewer samples: its numbers are noisy. `compare_methods.py` compares training methods.
"""

import argparse
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any


MODELS = Path(__file__).resolve().parents[1] / "models"
DOMAINS: dict[
    str, tuple[str, int, int]
] = {  # what it does, and seconds on two idle cores: in full, and with `--quick`
    "sudoku": ("learns the default sampler for 4 x 4 sudoku, then counts valid grids", 35, 20),
    "molecules": ("samples SMILES strings, has rdkit read them, and draws some", 25, 10),
    "garments": ("samples pictures by class, has a classifier judge them, and draws a grid", 30, 15),
    "books": ("samples English text, and compares it with novels", 40, 10),
}
STARTING = 10  # seconds until the libraries are loaded


def main() -> None:
    args = parse_args()
    tic, names = time.perf_counter(), [name for name in DOMAINS if name in args.only]
    announce(args, names)
    findings, failed = {}, []
    for i, name in enumerate(names, 1):
        print(f"== {name} ({i} of {len(names)}) ==", flush=True)
        began = time.perf_counter()
        try:
            findings[name] = show(name, args)
        except (ImportError, OSError, ValueError) as error:  # the other domains still run
            failed.append(name)
            print(f"{name} failed: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        print(f"{name} took {time.perf_counter() - began:.0f} seconds.\n", flush=True)
    finish(args, findings, time.perf_counter() - tic)
    sys.exit(1 if failed else 0)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=folder, default=Path("demo-output"), help="default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=DOMAINS, default=list(DOMAINS), metavar="DOMAIN",
                        help=f"some of {', '.join(DOMAINS)}")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="fewer samples, noisy numbers, less than two minutes")
    parser.add_argument("--samples", type=int, help="samples in each row; default: as many as the time allows")
    parser.add_argument("--models", type=folder, default=MODELS, help="folder of models and learned samplers")
    args = parser.parse_args()
    if args.samples is not None and args.samples < 2:
        parser.error(f"argument --samples: must be at least 2, got {args.samples}")
    return args


def folder(name: str) -> Path:
    return Path(name).expanduser()


def announce(args: argparse.Namespace, names: list[str]) -> None:
    """What will be done, and for how long, before the libraries are loaded."""
    seconds = STARTING + sum(DOMAINS[name][2 if args.quick else 1] for name in names)
    how_long = f"{seconds} seconds" if seconds < 100 else f"{round(seconds / 60)} minutes"
    print(f"This takes about {how_long} on two idle cores, without a network:")
    for name in names:
        print(f"  {name:<10} {DOMAINS[name][0]}")
    if args.quick or args.samples:
        print("Few samples: the numbers are noisy.")
    print(f"Everything is kept in {args.output_dir}. Loading the libraries ...\n", flush=True)


def show(name: str, args: argparse.Namespace) -> Any:
    """Runs a domain, prints its table, and keeps it."""
    from demo_domains.finding import Setting

    run = importlib.import_module(f"demo_domains.{name}").run
    here = args.output_dir / name
    here.mkdir(parents=True, exist_ok=True)
    finding = run(Setting(here, args.models, args.quick, args.samples))
    finding.save(here, name)
    print(f"\n{finding.as_text()}", flush=True)
    return finding


def finish(args: argparse.Namespace, findings: dict[str, Any], seconds: float) -> None:
    """Writes the tables of all domains together, and lists all files."""
    from lsd_sampler.support.atomic import write_atomically

    noisy = "Few samples: the numbers are noisy.\n\n" if args.quick or args.samples else ""
    text = "\n".join(f"== {name} ==\n\n{finding.as_text()}" for name, finding in findings.items())
    summary = {"noisy": bool(noisy), "domains": {name: finding.summary() for name, finding in findings.items()}}
    args.output_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(args.output_dir / "table.txt", (noisy + text).encode())
    write_atomically(args.output_dir / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    print(f"All took {seconds:.0f} seconds. {noisy.strip()}".rstrip())
    print("Files:")
    for path in [args.output_dir / "table.txt", args.output_dir / "summary.json"]:
        print(f"  {path}")
    for finding in findings.values():
        for path in finding.files:
            print(f"  {path}{'/' if path.is_dir() else ''}")


if __name__ == "__main__":
    main()
