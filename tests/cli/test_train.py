"""`lsd-train` end to end: a whole folder, the same for the same seed, and no work is lost."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import BOOKS, MODEL, TINY, fails, records
from huggingface_hub.utils import validate_repo_id

from lsd_sampler import LSDScheduler
from lsd_sampler.cli import train
from lsd_sampler.denoisers import MarkovDenoiser, countdown
from lsd_sampler.training.config import all_options


pytestmark = pytest.mark.usefixtures("no_plots")

WRITTEN = {"README.md", "config.json", "metrics.jsonl", "scheduler_config.json", "scheduler_model.safetensors"}


def test_every_option_of_a_distillation_is_a_flag_with_help() -> None:
    text = train.build_parser().format_help()
    for option in all_options():
        assert f"--{option.name.replace('_', '-')}" in text
    for flag in ("--model", "--output-dir", "--dry-run", "--push-to-hub"):
        assert flag in text


@pytest.mark.parametrize("method", ["path_kl", "lsd"])
def test_train_leaves_a_whole_folder(folders: dict[str, Path], method: str) -> None:
    folder = folders[method]
    assert {path.name for path in folder.iterdir()} - {"schedule.png"} == WRITTEN
    scheduler = LSDScheduler.from_pretrained(folder)
    assert sorted(scheduler.learned_sampler.steps) == [4, 8]
    assert scheduler.available_num_inference_steps == (None if method == "path_kl" else [4, 8])
    assert scheduler.config.base_model == MODEL and scheduler.config.mask_token_id == 8
    assert scheduler.config.order == ("halton" if method == "path_kl" else "random")
    logged = records(folder)
    assert [r["event"] for r in logged][0] == "config" and logged[-1]["event"] == "done"
    assert logged[0]["model"] == MODEL and logged[0]["method"] == method
    described = json.loads((folder / "config.json").read_text())
    assert described["distillation"]["num_sequences"] == 8


def test_same_seed_same_sampler(folders: dict[str, Path], tmp_path: Path) -> None:
    for seed in ("0", "1"):
        assert train.main([*TINY, "--seed", seed, "--output-dir", str(tmp_path / seed)]) == 0
    name = "scheduler_model.safetensors"
    first = (folders["path_kl"] / name).read_bytes()
    assert (tmp_path / "0" / name).read_bytes() == first
    assert (tmp_path / "1" / name).read_bytes() != first


def test_output_folder_has_a_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(TINY) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["countdown-V8-L32-path_kl-halton"]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("countdown", "countdown"),
        ("countdown:V=16,L=64", "countdown-V16-L64"),
        ("markov:V=3,L=3,seed=0", "markov-V3-L3-seed0"),
        ("markov:chains/one.json,L=64", "markov-one.json-L64"),
        ("models/books-radd/", "books-radd"),
        ("owner/sedd.small", "sedd.small"),
        ("models/a model: mine", "a-model-mine"),
    ],
)
def test_a_models_short_name_is_fit_for_folders_and_for_the_hub(model: str, name: str) -> None:
    assert train.short_name(model) == name
    validate_repo_id(f"user/{name}-path_kl-halton")


def test_work_is_never_lost_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what a run that was interrupted had finished, nor a sampler."""
    argv = [*TINY, "--batch-size", "2", "--cache-dir", "/dev/null", "--output-dir", str(tmp_path)]
    forward, calls = MarkovDenoiser.forward, [0]

    def interrupted(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == 140:
            raise KeyboardInterrupt
        return forward(*args, **kwargs)

    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    with monkeypatch.context() as patch:
        patch.setattr(MarkovDenoiser, "forward", interrupted)
        assert train.main(argv) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "Interrupted; go on with `--resume`."
    kept = contents()
    assert len(kept) >= 3 and all(name.startswith("progress-") for name in kept)
    fails(capsys, "lsd-train", argv, "--output-dir", "holds an unfinished run", "`--resume`", "`--overwrite`")
    assert contents() == kept
    monkeypatch.setattr(MarkovDenoiser, "forward", forward)
    assert train.main([*argv, "--resume"]) == 0
    learned = contents()
    assert set(learned) == WRITTEN
    capsys.readouterr()
    fails(capsys, "lsd-train", [*argv, "--seed", "1"], "--output-dir", "holds a sampler", "`--overwrite`")
    assert contents() == learned
    assert train.main([*argv, "--resume"]) == 0
    assert train.main([*argv, "--seed", "1", "--overwrite"]) == 0
    assert contents()["scheduler_model.safetensors"] != learned["scheduler_model.safetensors"]


def test_an_unfinished_run_is_overwritten_if_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = [*TINY, "--cache-dir", "/dev/null", "--output-dir", str(tmp_path)]
    (tmp_path / "progress").mkdir()
    (tmp_path / "progress" / "progress-plan.safetensors").write_text("of another run")
    assert train.main([*argv, "--overwrite"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == WRITTEN


def test_an_interrupt_before_anything_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(MarkovDenoiser, "forward", interrupted)
    assert train.main([*TINY, "--output-dir", str(tmp_path)]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "Interrupted."


def test_the_card_calls_the_model_as_the_run_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    argv = [*TINY, "--pipeline-kwargs", '{"prefix": [3, 2]}', "--length", "20"]
    assert train.main([*argv, "--output-dir", "out"]) == 0
    text = Path("out", "README.md").read_text()
    assert "- Every call of the pipeline had `length=20`, `prefix=[3, 2]`: it is a sampler for such calls.\n" in text
    namespace: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], namespace)
    assert namespace["out"].sequences.shape == (2, 20)
    assert namespace["out"].sequences[:, :2].tolist() == [[3, 2], [3, 2]]


@pytest.mark.parametrize(
    ("flags", "run"),
    [
        (["--pipeline-kwargs", '{"prefix": [3]}', "--length", "9"], {"length": 9, "pipeline_kwargs": {"prefix": [3]}}),
        (["--data", "data.jsonl", "--dtype", "float32"], {"dtype": "float32", "data": "data.jsonl"}),
        (["--license", "mit"], {"license": "mit"}),
    ],
)
def test_a_run_can_be_repeated_from_its_config(
    flags: list[str], run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names no path but those given, as they were given."""
    monkeypatch.chdir(tmp_path)
    rows = countdown(8, 32).sample(8, torch.Generator().manual_seed(0)).tolist()
    Path("data.jsonl").write_text("".join(json.dumps({"ids": row}) + "\n" for row in rows))
    assert train.main([*TINY, *flags, "--output-dir", "out"]) == 0
    described = json.loads(Path("out", "config.json").read_text())
    assert str(tmp_path) not in json.dumps(described) and described["run"] == {"model": MODEL, **run}
    argv = []
    for name, value in {**described["distillation"], **described["run"]}.items():
        words = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
        argv += [f"--{name.replace('_', '-')}", *map(str, words)] if value is not None else []
    assert train.main([*argv, "--output-dir", "again"]) == 0
    said = [line for line in Path("again", "README.md").read_text().splitlines() if line.startswith("license")]
    assert said == [f"license: {name}" for name in filter(None, [run.get("license")])]
    for name in ("config.json", "scheduler_model.safetensors", "scheduler_config.json"):
        assert Path("again", name).read_bytes() == Path("out", name).read_bytes()


def test_a_local_models_path_does_not_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    countdown(8, 32).save_pretrained("chain")
    assert train.main(["--model", "chain", *TINY[2:], "--output-dir", "out"]) == 0
    assert LSDScheduler.from_pretrained("out").config.base_model is None


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--model", "countdwon"], ["'countdwon'", "Did you mean 'countdown'?"]),
        (["--model", "countdown:V=x"], ["countdown:V=x"]),
        (["--model", "./no/such/model"], ["./no/such/model"]),
        (["--model", MODEL, "--order", "confidence"], ["`order`", "random", "halton"]),
        (["--model", MODEL, "--num-sequences", "0"], ["`num_sequences`"]),
        (["--model", MODEL, "--nfe", "4", "64"], ["`nfe` 64", "32"]),
        (["--model", MODEL, "--nfe", "4", "64", "--dry-run"], ["`nfe` 64", "32"]),
        (["--model", MODEL, "--nfe", "4", "--length", "33"], ["`length`", "32"]),
        (["--model", MODEL, "--pipeline-kwargs", '{"prefixx": [1]}'], ["`prefixx`", "Did you mean 'prefix'?"]),
        (["--model", "radd", "--dry-run", "--pipeline-kwargs", '{"lenght": 9}'], ["`lenght`", "mean 'length'?"]),
        (["--model", MODEL, "--pipeline-kwargs", '{"num_inference_steps": 9}'], ["`num_inference_steps`", "leave it"]),
        (["--model", BOOKS, "--data", "EMPTY"], ["`--data`", "empty.txt", "no text of 128 tokens"]),
    ],
)
def test_known_mistakes_of_train(
    argv: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.txt").touch()
    argv = [str(tmp_path / "empty.txt") if word == "EMPTY" else word for word in argv]
    fails(capsys, "lsd-train", [*argv, "--output-dir", str(tmp_path / "out")], *words)
    assert [path.name for path in tmp_path.iterdir()] == ["empty.txt"]


def test_a_run_that_breaks_leaves_the_folder_as_it_was(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in folders["path_kl"].iterdir()}
    calls, forward = [0], MarkovDenoiser.forward

    def breaks(self: MarkovDenoiser, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls[0] += 1
        if calls[0] % 30 == 0:
            return torch.full_like(forward(self, *args, **kwargs), math.nan)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(MarkovDenoiser, "forward", breaks)
    for out in (folders["path_kl"], tmp_path / "new"):
        fails(capsys, "lsd-train", [*TINY, "--overwrite", "--output-dir", str(out)], "NaN")
    # beside what a later `--resume` goes on from
    after = {path.name: path.read_bytes() for path in folders["path_kl"].iterdir() if path.is_file()}
    assert after == before
    assert {path.name for path in (tmp_path / "new").iterdir()} <= {"progress"}
