"""Lines on the terminal while `lsd-train` runs."""

import re
from pathlib import Path

import pytest
from helpers.commands import MODEL, records

from lsd_sampler.cards import sampler_card as cards
from lsd_sampler.cli import train


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots cost more than all the rest."""
    monkeypatch.setattr(cards, "_plot", lambda *_: False)


def test_events_are_short_lines_between_the_bars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One for each record of metrics.jsonl; and bars stay whole."""
    argv = ["--model", MODEL, "--nfe", "4", "16", "--num-sequences", "8", "--reference-sequences", "32"]
    argv += ["--coefficient-sequences", "16", "--output-dir", str(tmp_path)]
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
