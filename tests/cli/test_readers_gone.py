"""`lsd-sample ... | head -1`: a reader that has gone is no error, and what goes to files is finished."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lsd_sampler import LSDScheduler
from lsd_sampler.cards import sampler_card as cards
from lsd_sampler.cli import evaluate, sample, train


MODEL = "countdown:V=4,L=8"


@pytest.fixture
def nobody_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stdout whose other end is closed."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        yield


def test_a_shell_pipe_ends_quietly() -> None:
    """Neither an error nor a traceback, nor a code that would stop a script under `pipefail`."""
    command = (
        f"{shlex.quote(sys.executable)} -m lsd_sampler.cli.sample --model {MODEL} --num-samples 500 --batch-size 1"
    )
    line = f"set -o pipefail; {command} | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert "Error" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("flag", ["--help", "--env"])
def test_help_and_versions_are_no_errors(flag: str, nobody_reads: None) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main([flag])
    assert stop.value.code == 0


def test_a_distillation_is_not_lost(
    nobody_reads: None, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "_plot", lambda *_: False)
    argv = ["--model", MODEL, "--method", "path_kl", "--nfe", "2", "--num-sequences", "4"]
    assert train.main([*argv, "--output-dir", str(tmp_path)]) == 0
    assert LSDScheduler.from_pretrained(tmp_path).learned_sampler
    assert "Error" not in capfd.readouterr().err


def test_an_evaluation_is_not_lost(nobody_reads: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lsd_sampler.evaluation.plots.plot_quality_vs_nfe", lambda *_, **__: None)
    assert evaluate.main(["--model", MODEL, "--nfe", "2", "--num-samples", "8", "--output-dir", str(tmp_path)]) == 0
    assert {"table.txt", "summary.json", "report.html"} <= {path.name for path in tmp_path.iterdir()}


def test_samples_reach_their_file(nobody_reads: None, tmp_path: Path) -> None:
    argv = ["--model", MODEL, "--num-samples", "5", "--batch-size", "2"]
    assert sample.main([*argv, "--output", str(tmp_path / "samples.jsonl")]) == 0
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert [len(json.loads(line)["ids"]) for line in lines] == [8] * 5


def test_a_terminal_that_knows_no_umlaut_loses_no_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be printed is escaped; the file has it as it is."""
    with open(tmp_path / "stdout", "w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        call = sample.call
        monkeypatch.setattr(sample, "call", lambda *args, **kw: [row | {"text": "naïve"} for row in call(*args, **kw)])
        argv = ["--model", MODEL, "--num-samples", "1", "--output", str(tmp_path / "samples.jsonl")]
        assert sample.main(argv) == 0
    assert (tmp_path / "stdout").read_text() == "na\\xefve\n"
    assert json.loads((tmp_path / "samples.jsonl").read_text())["text"] == "naïve"
