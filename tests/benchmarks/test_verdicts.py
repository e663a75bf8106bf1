"""The page of verdicts: the best, what is level with it, and where one's own sampler stands."""

import json
import subprocess
import sys
from pathlib import Path

from lsd_sampler.evaluation.comparison import SWEEP_SEED
from lsd_sampler.evaluation.rows import Row, write_jsonl


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "verdicts.py"


def row(sampler: str, value: float, spread: float, seed: int = 0) -> Row:
    replicates = [value - spread, value, value + spread]
    return {"sampler": sampler, "nfe": 8, "seed": seed, "distance": value, "distance_replicates": replicates}


def test_what_is_level_and_what_is_behind(tmp_path: Path) -> None:
    """Replicates are paired: a sampler whose distances all lie higher by one number is behind for sure."""
    rows = [row("best", 1.0, 0.1), row("level", 1.1, 0.5), row("behind", 1.2, 0.1), row("best", 0.5, 0.1, SWEEP_SEED)]
    write_jsonl(tmp_path / "metrics.jsonl", rows)
    (tmp_path / "summary.json").write_text(json.dumps({"verdict": "distance"}))
    for own, said in (("best", "level"), ("level", "level"), ("behind", "behind by 0.2 (0.2 to 0.2)"), ("other", "-")):
        command = [sys.executable, SCRIPT, tmp_path, "--ours", own]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        *_, line = out.splitlines()
        assert line.split()[1:5] == ["8", "best", "1.0000", "level"] and line.rstrip().endswith(said)
