"""What the commands make of paths and names before any work: `~`, bytes that are no text, and what the Hub refuses."""

import os
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill, load_denoiser
from lsd_sampler.cards import sampler_card as cards
from lsd_sampler.cli import evaluate, sample, train
from lsd_sampler.denoisers import countdown
from lsd_sampler.evaluation import JudgeNLL, plot_schedule, read_jsonl, write_jsonl
from lsd_sampler.support import hub


MODEL = "countdown:V=4,L=8"
TRAIN = ["--model", MODEL, "--method", "path_kl", "--nfe", "2", "--num-sequences", "4"]
COMMANDS: dict[str, Any] = {"lsd-train": train, "lsd-sample": sample, "lsd-eval": evaluate}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder, and not the current one; nothing called `~` may be left in that."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "_plot", lambda *_: False)


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for command in COMMANDS.values():
        monkeypatch.setattr(command, "load_pipeline", lambda *_: pytest.fail("something is loaded"))


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


# ---- the home folder ----


def test_whatever_is_saved_in_the_home_folder_is_loaded_from_there(home: Path) -> None:
    chain = countdown(4, 8)
    LSDScheduler(mask_token_id=4, order="halton").save_pretrained("~/sampler")
    assert LSDScheduler.from_pretrained("~/sampler").config.order == "halton"
    chain.save_pretrained("~/chain")
    assert load_denoiser("~/chain").length == 8
    assert load_denoiser("markov:~/chain/model.safetensors,L=8").vocab_size == 4
    pipe = MaskedDiffusionPipeline(chain, LSDScheduler(**chain.scheduler_config(), order="halton"))
    pipe.save_pretrained("~/pipe")
    assert MaskedDiffusionPipeline.from_pretrained("~/pipe").scheduler.config.order == "halton"
    assert MaskedDiffusionPipeline.from_pretrained("~/chain").denoiser.length == 8
    config = DistillConfig(method="path_kl", nfe=(2,), num_sequences=4)
    distill(pipe, config, checkpoint_dir="~/progress", cache_dir="~/cache")
    write_jsonl("~/rows/x.jsonl", [{"x": 1}])
    assert read_jsonl("~/rows/x.jsonl") == [{"x": 1}]
    plot_schedule({"2 calls": [1, 0.5, 0]}, "~/plots/x.png")
    written = {path.name for path in home.iterdir() if not path.name.startswith(".")}  # matplotlib has a `.config`
    assert written == {"sampler", "chain", "pipe", "progress", "cache", "rows", "plots"}
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("name", ["~/none", "~nobody-of-this-name/none"])
def test_of_what_is_not_there_the_name_is_said(home: Path, name: str) -> None:
    for load in (LSDScheduler.from_pretrained, load_denoiser, MaskedDiffusionPipeline.from_pretrained):
        with pytest.raises((OSError, ValueError), match="none"):
            load(name)
    with pytest.raises(OSError):
        JudgeNLL.from_pretrained(name)


def test_the_commands_know_the_home_folder(home: Path, no_plots: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell expands `~` in a word of its own only, not after `=`."""
    monkeypatch.setattr("lsd_sampler.evaluation.plots.plot_quality_vs_nfe", lambda *_, **__: None)
    assert train.main([*TRAIN, "--output-dir=~/out/sampler", "--cache-dir=~/cache"]) == 0
    assert sample.main(["--model", MODEL, "--sampler=~/out/sampler", "--nfe=2", "--output=~/out/samples.jsonl"]) == 0
    argv = ["--model", MODEL, "--sampler=~/out/sampler", "--nfe=2", "--num-samples=8", "--output-dir=~/out/eval"]
    assert evaluate.main(argv) == 0
    countdown(4, 8).save_pretrained("~/chain")
    assert sample.main(["--model=~/chain"]) == 0
    assert {path.name for path in home.iterdir()} == {"out", "cache", "chain"}
    assert {path.name for path in (home / "out").iterdir()} == {"sampler", "samples.jsonl", "eval"}
    assert not list(Path.cwd().iterdir())


# ---- bytes ----


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        ("lsd-train", "--output-dir"), ("lsd-train", "--data"), ("lsd-train", "--model"),
        ("lsd-sample", "--prefix"), ("lsd-sample", "--suffix"), ("lsd-sample", "--output"),
        ("lsd-eval", "--output-dir"), ("lsd-eval", "--sampler"), ("lsd-eval", "--baselines"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_text_are_named_at_the_start(
    command: str, flag: str, home: Path, no_work: None, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--model", MODEL, flag, os.fsdecode(b"na\xefve")]
    assert COMMANDS[command].main(argv) == 1
    line = last_line(capsys)
    assert line.startswith(f"Error: `{flag}` 'na") and "not UTF-8" in line
    assert not list(Path.cwd().iterdir())


# ---- names for the Hub ----


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--license", "Apache 2.0"], ["`--license` 'Apache 2.0'", "Did you mean 'apache-2.0'?", "`other`"]),
        (["--license", "MIT"], ["'MIT'", "Did you mean 'mit'?"]),
        (["--license", "my own"], ["'my own'", "`other`"]),
        (["--license", ""], ["`--license` ''"]),
        (["--push-to-hub", "a/b/c"], ["`--push-to-hub` 'a/b/c'", "USER/NAME"]),
        (["--push-to-hub", "user/my sampler"], ["'user/my sampler'", "USER/NAME"]),
        (["--push-to-hub", "https://huggingface.co/user/x"], ["USER/NAME"]),
        (["--push-to-hub", "user/x..y"], ["'user/x..y'"]),
    ],
)
def test_what_the_hub_would_refuse_is_known_before_the_work(
    argv: list[str], words: list[str], home: Path, no_work: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ([], ["--dry-run"]):
        assert train.main([*TRAIN, "--output-dir", "out", *argv, *more]) == 1
        line = last_line(capsys)
        assert line.startswith("Error: ") and all(word in line for word in words), line
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    ("error", "code"),
    [(OSError("no route to host"), 1), (ValueError("Invalid metadata."), 1), (KeyboardInterrupt(), 130)],
)
def test_a_failed_upload_says_how_to_upload_what_is_there(
    error: BaseException, code: int, home: Path, no_plots: None, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fails(**_: Any) -> None:
        raise error

    monkeypatch.setattr(hub, "create_repo", lambda *_, **__: SimpleNamespace(repo_id="user/chain"))
    monkeypatch.setattr(hub, "upload_folder", fails)
    assert train.main([*TRAIN, "--output-dir", "my sampler", "--push-to-hub", "chain"]) == code
    line = last_line(capsys)
    assert str(error) in line
    command = line.split("`")[1]
    assert shlex.split(command) == ["hf", "upload", "user/chain", "my sampler"]
    assert {"README.md", "scheduler_model.safetensors"} <= {path.name for path in Path("my sampler").iterdir()}
    if code == 1:
        with pytest.raises(type(error), match=r"hf upload user/chain saved below --revision refs/pr/1"):
            LSDScheduler(mask_token_id=4).save_pretrained(
                "saved", push_to_hub=True, repo_id="user/chain", subfolder="below", revision="refs/pr/1"
            )
