"""Commands of `lsd-eval` in tests: on an oracle, and on the tiny text model of the fixture `text_model`."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from . import commands


ORACLE = ["--model", "countdown:V=4,L=16", "--num-samples", "32", "--nfe", "4", "8"]
LETTERS = "abcdef "


def letters() -> Tokenizer:
    return Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(LETTERS)}, merges=[]))


def argv(paths: dict[str, Path], out: Path, *more: str) -> list[str]:
    fixed = ["--nfe", "2", "4", "--num-samples", "24", "--batch-size", "12", "--temperatures", "0.5", "1", "2"]
    return ["--model", str(paths["model"]), "--judge", str(paths["judge"]), "--output-dir", str(out), *fixed, *more]


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str], *words: str) -> str:
    return commands.fails(capsys, "lsd-eval", arguments, *words)
