"""The page of verdicts: the best, what is level with it, and where one's own sampler stands."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lsd_sampler.evaluation.comparison import SWEEP_SEED
from lsd_sampler.evaluation.rows import Row, write_jsonl


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "verdicts.py"


def row(sampler: str, value: float, spread: float, seed: int = 0, num_samples: int = 64) -> Row:
    replicates = [value - spread, value, value + spread]
    same = {"sampler": sampler, "nfe": 8, "seed": seed, "num_samples": num_samples}
    return same | {"distance": value, "distance_replicates": replicates}


def folder(path: Path, rows: Sequence[Row]) -> Path:
    path.mkdir()
    write_jsonl(path / "metrics.jsonl", rows)
    (path / "summary.json").write_text(json.dumps({"verdict": "distance"}))
    return path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True)


def test_what_is_level_and_what_is_behind(tmp_path: Path) -> None:
    """Replicates are paired: a sampler whose distances all lie higher by one number is behind for sure."""
    rows = [row("best", 1.0, 0.1), row("level", 1.1, 0.5), row("behind", 1.2, 0.1), row("best", 0.5, 0.1, SWEEP_SEED)]
    found = folder(tmp_path / "found", rows)
    for own, said in (("best", "level"), ("level", "level"), ("behind", "behind by 0.2 (0.2 to 0.2)"), ("other", "-")):
        *_, line = run(found, "--ours", own).stdout.splitlines()
        assert line.split()[1:5] == ["8", "best", "1.0000", "level"] and line.rstrip().endswith(said)


def test_joined_folders_are_one_domain(tmp_path: Path) -> None:
    one = folder(tmp_path / "one", [row("near", 1.0, 0.1), row("far", 2.0, 0.1)])
    two = folder(tmp_path / "two", [row("best", 0.5, 0.1)])
    table = run(f"{one}+{two}", "--ours", "near").stdout.splitlines()
    assert len(table) == 3 and table[2].split()[:4] == ["one", "8", "best", "0.5000"]
    assert table[2].rstrip().endswith("behind by 0.5 (0.5 to 0.5)")
    fewer = folder(tmp_path / "fewer", [row("best", 0.5, 0.1, num_samples=32)])
    refused = run(f"{one}+{fewer}")
    assert refused.returncode and "numbers of samples" in refused.stderr
