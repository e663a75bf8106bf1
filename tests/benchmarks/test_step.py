"""The cost of a step: every registered order is on the list, and its ratio is that of the times it stands for."""

import json
import subprocess
import sys
from pathlib import Path

from lsd_sampler.sampling.orders import ORDERS


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "step.py"


def test_every_registered_order_is_compared_with_a_read_of_its_rows(tmp_path: Path) -> None:
    sizes = "--batch 2 --length 8 --vocab 32 --steps 2 --repeats 1 --ours-only".split()
    script = [sys.executable, SCRIPT, *sizes, "--json", tmp_path / "step.json"]
    out = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    rows = {row["name"]: row for row in json.loads((tmp_path / "step.json").read_text())["rows"]}
    assert list(rows) == [f"ours, order {name}" for name in ORDERS.names()]
    for name, row in rows.items():
        assert row["reading_seconds"] > 0 and row["peak_bytes"] > 0
        [line] = [line for line in out.splitlines() if line.startswith(f"{name} ")]
        assert line.split()[6] == f"{row['seconds'] / row['reading_seconds']:.2f}"
