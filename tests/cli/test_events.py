"""Lines on the terminal while `lsd-train` runs."""

import re
from pathlib import Path

import pytest
from helpers.commands import MODEL, records

from lsd_sampler.cli import train


pytestmark = pytest.mark.usefixtures("no_plots")


def test_events_are_short_lines_between_the_bars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One for each record of metrics.jsonl; and bars stay whole."""
    argv = ["--model", MODEL, "--nfe", "4", "16", "--num-sequences", "8", "--reference-sequences", "32"]
    argv += ["--coefficient-sequences", "16", "--held-out-sequences", "16", "--search-evaluations", "500"]
    argv += ["--candidates", "path_kl:random", "lsd:random", "forced_kl:adaptive", "--terms", "own", "gain"]
    argv += ["--layouts", "offset", "--budgets", "position_shares", "--free-below", "0.1"]
    argv += ["--output-dir", str(tmp_path)]
    assert train.main(argv) == 0
    written = re.split(r"[\r\n]+", capsys.readouterr().err)
    lines = [line for line in written if re.match(r"[\d.]+ s  ", line)]
    logged = records(tmp_path)[1:]
    assert len(lines) == len(logged) > 20
    for line, record in zip(lines, logged, strict=True):
        assert record["event"] in line and len(line) < 250 and not re.search(r"\d\.\d{8}|[{}]", line)
        assert "nfe" not in record or f", {record['nfe']} calls: " in line
    assert all(re.match(r"[\w ]+: +\d+%\|", line) for line in written if "%|" in line)
    schedule = next(line for line in lines if "schedule, 16 calls" in line)
    record = next(r for r in logged if r["event"] == "schedule" and r["nfe"] == 16)
    known = record["known_after_step"]
    ends = [*known[:4], "...", *known[-4:]]
    assert schedule.split("  ")[1].startswith(f"{record['candidate']}: ")
    assert schedule.endswith(f"known_after_step {' '.join(map(str, ends))}")
