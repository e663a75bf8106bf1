"""What was recorded is made again, and a share that nothing can reach is noticed."""

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
    # 2 of 4 and 0 of 2: 6 of the 15 pairs hold none of the two that are right, and 9 hold some; 1 holds both
    assert module.compared(row, again)["p"] == pytest.approx(7 / 15)
    assert module.compared(row, {"right_share": 0.5, "num_samples": 2})["p"] == pytest.approx(1.0)


def test_recorded_rows_are_made_again(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, "--domains", "sudoku", "--nfe", "2", "--part", "200", "--output-dir", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    recorded = json.loads(SCRIPT.with_name("reproduction_rows.json").read_text())
    num = sum(row["domain"] == "sudoku" and row["nfe"] == 2 for row in recorded)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"0 of {num} shares differ by more than chance." in done.stdout and num > 3
