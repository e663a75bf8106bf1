"""The closed forms that the benchmark prints agree with what samplers reach that reveal at random."""

import subprocess
import sys
from pathlib import Path


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "parallelbench.py"


def test_random_positions_reach_the_closed_forms() -> None:
    """False alarm: 6e-5 a row (4 standard errors, and what rounding to three digits adds)."""
    num = 2000
    script = [sys.executable, SCRIPT, "--lengths", "4", "--num-samples", str(num)]
    out = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in out.splitlines() if line.startswith(("shuffle", "replace_one"))]
    assert [(task, k) for task, _, k, *_ in rows] == [(t, k) for t in ("shuffle", "replace_one") for k in "421"]
    for _, _, _, closed_form, random, *_ in rows:
        p = float(closed_form)
        assert abs(float(random) - p) <= 4 * (p * (1 - p) / num) ** 0.5 + 1e-3
