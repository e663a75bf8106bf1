"""Runs of the three commands on a tiny oracle."""

import json
from pathlib import Path
from typing import Any

import pytest

from lsd_sampler.cli import evaluate, sample, train


MODEL = "countdown:V=8,L=32"
BOOKS = str(Path(__file__).parents[2] / "models" / "books-radd")
TINY = ["--model", MODEL, "--nfe", "4", "8", "--num-sequences", "8", "--method", "path_kl"]
COMMANDS = {"lsd-train": train, "lsd-sample": sample, "lsd-eval": evaluate}


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def fails(capsys: pytest.CaptureFixture[str], command: str, argv: list[str], *words: str) -> str:
    """A known mistake: exit code 1, at most the folder's name on stdout, one sentence and no traceback on stderr."""
    assert COMMANDS[command].main(argv) == 1
    out, err = capsys.readouterr()
    assert all(line.startswith("Output folder:") for line in out.splitlines())
    last = err.strip().splitlines()[-1]
    assert [line for line in err.splitlines() if line.startswith("Error: ")] == [last]
    assert "Traceback" not in err
    assert all(word in last for word in words), last
    return last
