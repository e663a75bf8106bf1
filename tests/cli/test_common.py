"""What the three commands share: flags and their help, checks before any work, and the end in one sentence."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import COMMANDS, MODEL, TINY, fails

from lsd_sampler.cli import evaluate, sample, train
from lsd_sampler.denoisers import MarkovDenoiser


pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.mark.parametrize("command", ["lsd-train", "lsd-sample"])
def test_help_says_every_default(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    parser = COMMANDS[command].build_parser()
    options = re.split(r"^  (?=-)", parser.format_help(), flags=re.MULTILINE)[1:]
    for action, text in zip(parser._actions, options, strict=True):
        words, value = " ".join(text.split()), action.default
        assert action.option_strings[-1] in words
        if value not in (None, False, "==SUPPRESS=="):
            shown = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            assert re.search(rf"default: {re.escape(shown)}\)?$", words), words
        if command == "lsd-train" and action.dest == "nfe":
            assert "(default: of 4 8 16 32 64, those" in words


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("lsd-train", []),
        ("lsd-train", ["--model"]),
        ("lsd-train", ["--model", MODEL, "--nfe", "0"]),
        ("lsd-train", ["--model", MODEL, "--nfe"]),
        ("lsd-train", ["--model", MODEL, "--seed", "x"]),
        ("lsd-train", ["--model", MODEL, "--unknown"]),
        ("lsd-train", ["--model", MODEL, "--resume", "--overwrite"]),
        ("lsd-sample", ["--model", MODEL, "--num-samples", "0"]),
        ("lsd-sample", ["--model", MODEL, "--length", "0"]),
        ("lsd-sample", ["--model", MODEL, "--device", "abacus"]),
        ("lsd-sample", ["--model", MODEL, "--dtype", "int8"]),
        ("lsd-eval", ["--model", MODEL, "--nfe", "eight"]),
    ],
)
def test_usage_errors(command: str, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        COMMANDS[command].main(argv)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith(f"usage: {command}") and "Traceback" not in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        sample.main(["--model", MODEL, "--device", "cuda"])
    assert stop.value.code == 2 and "CUDA" in capsys.readouterr().err


def test_an_unusable_output_folder_is_known_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(train, "distill", lambda *_, **__: pytest.fail("the work began"))
    for name in ("file", "file/below"):
        fails(capsys, "lsd-train", [*TINY, "--output-dir", str(tmp_path / name)], "--output-dir", "is a file")
    monkeypatch.setattr(evaluate, "make_metrics", lambda *_: pytest.fail("the work began"))
    fails(capsys, "lsd-eval", ["--model", MODEL, "--output-dir", str(tmp_path / "file")], "is a file")
    assert (tmp_path / "file").read_text() == "mine"


def test_interrupt_and_lack_of_memory(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(error: BaseException) -> Any:
        def forward(*_: Any, **__: Any) -> torch.Tensor:
            raise error

        return forward

    monkeypatch.setattr(MarkovDenoiser, "forward", raises(KeyboardInterrupt()))
    assert sample.main(["--model", MODEL]) == 130
    assert "Interrupted" in capsys.readouterr().err
    monkeypatch.setattr(MarkovDenoiser, "forward", raises(torch.OutOfMemoryError()))
    fails(capsys, "lsd-sample", ["--model", MODEL], "--batch-size 4")
    fails(capsys, "lsd-train", TINY, "--batch-size")
