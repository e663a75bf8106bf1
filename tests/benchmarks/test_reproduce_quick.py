"""Shares are compared by Fisher's exact test, and what was recorded is made again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.scripts import load_script


ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "reproduce_quick.py"
pytest.importorskip("scipy", reason="scipy is not installed")


def test_shares_are_compared_exactly() -> None:
    module = load_script(SCRIPT)
    row = {"domain": "sudoku", "share": 0.5, "num_samples": 4}
    again = {"right_share": 0.0, "num_samples": 2}
    # of the 15 pairs among 4 + 2 samples, 6 hold none of the two that are right, 8 hold one, and 1 holds both; what is
    # no likelier than the 6 counts
    assert module.compared(row, again)["p"] == pytest.approx(7 / 15)
    assert module.compared(row, {"right_share": 0.5, "num_samples": 2})["p"] == pytest.approx(1.0)


def test_recorded_rows_are_made_again(tmp_path: Path) -> None:
    """False alarm: 1 %, of the script itself; the noise is fixed."""
    command = [sys.executable, SCRIPT, "--domains", "sudoku", "--nfe", "2", "--part", "200", "--output-dir", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    recorded = json.loads(SCRIPT.with_name("reproduction_rows.json").read_text())
    num = sum(row["domain"] == "sudoku" and row["nfe"] == 2 for row in recorded)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"0 of {num} shares differ by more than chance." in done.stdout and num > 3
