"""The tables of the reproduction report: what was judged, no sweep; and no likelihood without an entropy."""

import json
import subprocess
import sys
from pathlib import Path

from lsd_sampler.evaluation.comparison import SWEEP_SEED
from lsd_sampler.evaluation.rows import Row, write_jsonl


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def folder(path: Path, rows: list[Row], floor: Row | None = None) -> Path:
    path.mkdir()
    write_jsonl(path / "metrics.jsonl", rows)
    (path / "summary.json").write_text(json.dumps({"floor": floor}))
    return path


def row(sampler: str, nfe: int | None, value: float, seed: int = 0) -> Row:
    return {"sampler": sampler, "nfe": nfe, "seed": seed, "reverse_kl": value, "judge_nll": value, "entropy": 1.0}


def run(*arguments: object, script: str = "pivot.py") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, BENCHMARKS / script, *map(str, arguments)], capture_output=True, text=True)


def test_rows_of_all_folders_stand_side_by_side(tmp_path: Path) -> None:
    sweep = row("a", 4, 9.0, SWEEP_SEED)
    first = folder(tmp_path / "first", [sweep, row("a", 4, 0.5), row("a", 8, 0.25)], row("real data", None, 0.125))
    interval = row("b", 8, 0.75) | {"reverse_kl_low": 0.5, "reverse_kl_high": 1.0}
    out = run(first, folder(tmp_path / "second", [interval]), "--metrics", "reverse_kl", "--interval").stdout
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "reverse KL 4 calls 8 calls real"
    assert lines[2:] == ["a 0.500 0.250 -", "b - 0.750 ± 0.250 -", "real data - - 0.125"]


def test_a_likelihood_needs_an_entropy(tmp_path: Path) -> None:
    path = folder(tmp_path / "rows", [row("a", 4, 0.5)])
    refused = run(path, "--metrics", "judge_nll")
    assert refused.returncode and "entropy" in refused.stderr and not refused.stdout
    assert run(path, "--metrics", "judge_nll", "entropy").returncode == 0


def test_a_row_that_was_measured_again_counts_once(tmp_path: Path) -> None:
    rows = [row("a", 4, 9.0), row("b", 4, 8.0), row("b", 4, 0.75), row("a", 4, 0.5), row("a", 4, 7.0, SWEEP_SEED)]
    rows = [r | {"temperature": 1.0, "reverse_kl_replicates": [r["reverse_kl"]] * 9} for r in rows]
    path = folder(tmp_path / "rows", rows)
    lines = run(path, "--metrics", "reverse_kl").stdout.splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [["a", "0.500"], ["b", "0.750"]]
    (path / "summary.json").write_text(json.dumps({"verdict": "reverse_kl"}))
    table = run(path, "a", script="leads.py").stdout.splitlines()
    assert len(table) == 3 and table[-1].split()[:3] == ["4", "b", "0.2500"]


def test_a_metric_over_that_of_a_sampler(tmp_path: Path) -> None:
    path = folder(tmp_path / "rows", [row("a", 4, 0.5), row("b", 4, 0.25)], row("real data", None, 0.125))
    options = ("--metrics", "reverse_kl", "--over", "a", "--digits", "2")
    lines = run(path, *options).stdout.splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [["a", "1.00"], ["b", "0.50"]]
    refused = run(path, folder(tmp_path / "more", [row("b", 8, 0.5)]), *options)
    assert refused.returncode and "has no row at [8] calls" in refused.stderr
