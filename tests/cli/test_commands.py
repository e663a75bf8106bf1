"""The commands end to end on tiny oracles: results, exit codes, and one sentence for each known mistake."""

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils import validate_repo_id

from lsd_sampler import LSDScheduler
from lsd_sampler.cards import sampler_card as cards
from lsd_sampler.cli import evaluate, sample, train
from lsd_sampler.denoisers import MarkovDenoiser, countdown
from lsd_sampler.training.config import all_options


MODEL = "countdown:V=8,L=32"
BOOKS = str(Path(__file__).parents[2] / "models" / "books-radd")
TINY = ["--model", MODEL, "--nfe", "4", "8", "--num-sequences", "8", "--method", "path_kl"]
COMMANDS = {"lsd-train": train, "lsd-sample": sample, "lsd-eval": evaluate}
WRITTEN = {"README.md", "config.json", "metrics.jsonl", "scheduler_config.json", "scheduler_model.safetensors"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What `lsd-train` writes, for each method."""
    root = tmp_path_factory.mktemp("samplers")
    for method in ("path_kl", "lsd"):
        assert train.main([*TINY, "--method", method, "--output-dir", str(root / method)]) == 0
    return {method: root / method for method in ("path_kl", "lsd")}


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots cost more than all the rest; those of the module's own folders are made before this."""
    monkeypatch.setattr(cards, "_plot", lambda *_: False)


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


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        COMMANDS[command].main(["--help"])
    assert stop.value.code == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: {command}") and "--model" in out and not err


def test_every_option_of_a_distillation_is_a_flag_with_help() -> None:
    text = train.build_parser().format_help()
    for option in all_options():
        assert f"--{option.name.replace('_', '-')}" in text
    for flag in ("--model", "--output-dir", "--dry-run", "--push-to-hub"):
        assert flag in text


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


def test_from_a_shell(tmp_path: Path) -> None:
    """Results on stdout, progress on stderr; and a mistake, without a traceback."""
    train_argv = [*TINY, "--output-dir", "sampler"]
    script = (
        "import sys; from lsd_sampler.cli import sample, train;"
        f"codes = [train.main({train_argv!r}),"
        f" sample.main(['--model', {MODEL!r}, '--sampler', 'sampler', '--num-samples', '2']),"
        f" train.main(['--model', 'countdwon', '--output-dir', 'other'])];"
        "sys.exit(codes != [0, 0, 1])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Output folder: sampler"
    assert [line.split()[:2] for line in lines[1:3]] == [["4", "calls:"], ["8", "calls:"]]
    assert lines[3].startswith("Network calls: ") and lines[3].endswith("Saved to sampler.")
    assert [len(line.split()) for line in lines[4:] if line] == [32, 32]
    assert "replays" in done.stderr and re.search(r"^[\d.]+ s  done: network_calls \d+$", done.stderr, re.MULTILINE)
    assert "Did you mean 'countdown'?" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["sampler"]


# ---- lsd-train ----


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


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--batch-size", "3", "--num-states", "5", "--nfe", "2", "5"],
        ["--count", "bernoulli", "--teacher-steps", "40"],
        ["--length", "20"],
        ["--method", "lsd", "--teacher-steps", "30", "--batch-size", "3"],
        ["--method", "lsd", "--teacher-steps", "30", "--optimizer", "adam", "--epochs", "2"],
    ],
)
def test_dry_run_knows_the_network_calls(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = [*TINY, *options, "--output-dir", str(tmp_path / "out")]
    calls = [0]
    forward = MarkovDenoiser.forward

    def counted(self: MarkovDenoiser, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls[0] += 1
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(MarkovDenoiser, "forward", counted)
    assert train.main([*argv, "--dry-run"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert calls == [0] and not (tmp_path / "out").exists()
    assert plan["model"] == MODEL and plan["num_sequences"] == 8
    assert train.main(argv) == 0
    assert plan["network_calls"] == records(tmp_path / "out")[-1]["network_calls"] == calls[0]
    assert f"Network calls: {calls[0]}." in capsys.readouterr().out


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
    known = next(r for r in logged if r["event"] == "schedule" and r["nfe"] == 16)["known_after_step"]
    ends = [*known[:4], "...", *known[-4:]]
    assert schedule.split("  ")[1].startswith("path_kl:halton: ")
    assert schedule.endswith(f"known_after_step {' '.join(map(str, ends))}")


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


# ---- lsd-sample ----


@pytest.mark.parametrize("method", ["path_kl", "lsd"])
def test_sample(folders: dict[str, Path], method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--model", MODEL, "--sampler", str(folders[method]), "--nfe", "4", "--num-samples", "3"]
    output = tmp_path / "new" / "samples.jsonl"
    outs = []
    for seed in ("0", "0", "1"):
        assert sample.main([*argv, "--seed", seed, "--output", str(output)]) == 0
        outs.append(capsys.readouterr().out)
    assert outs[0] == outs[1] != outs[2]
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert "\n\n".join(line["text"] for line in lines) + "\n" == outs[2]
    assert all(len(line["ids"]) == 32 and 0 <= min(line["ids"]) <= max(line["ids"]) < 8 for line in lines)
    assert len(lines) == 3


@pytest.mark.parametrize("name", ["path_kl", "lsd", "plain"])
def test_samples_do_not_depend_on_the_batch_size(
    folders: dict[str, Path],
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each has noise of its own; and no batch is larger than asked for."""
    argv = ["--model", MODEL, "--nfe", "8", "--num-samples", "5", "--output", str(tmp_path / "samples")]
    argv += ["--sampler", str(folders[name])] if name in folders else ["--temperature", "0.7"]
    found, sizes, forward = [], [], MarkovDenoiser.forward

    def watched(self: MarkovDenoiser, tokens: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        sizes.append(len(tokens))
        return forward(self, tokens, *args, **kwargs)

    monkeypatch.setattr(MarkovDenoiser, "forward", watched)
    for size in ("64", "5", "2", "1"):
        sizes.clear()
        assert sample.main([*argv, "--batch-size", size]) == 0
        found.append((capsys.readouterr().out, (tmp_path / "samples").read_text()))
        assert max(sizes) == min(int(size), 5)
    assert found == [found[0]] * 4 and len(set(found[0][1].splitlines())) == 5


def test_sample_without_a_sampler_is_the_base_solver(capsys: pytest.CaptureFixture[str]) -> None:
    assert sample.main(["--model", MODEL, "--num-samples", "1", "--length", "10", "--temperature", "0"]) == 0
    assert len(capsys.readouterr().out.split()) == 10


def test_path_kl_can_do_any_number_of_steps(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert sample.main(["--model", MODEL, "--sampler", str(folders["path_kl"]), "--nfe", "11"]) == 0
    assert len(capsys.readouterr().out.split()) == 4 * 32


def test_more_steps_than_a_table_has_states(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Card and error say how many there are; the error, how to have more."""
    out = tmp_path / "out"
    assert train.main([*TINY, "--num-states", "8", "--output-dir", str(out)]) == 0
    states = next(r["states"] for r in records(out) if r["event"] == "step_error")
    assert f"for any number of calls up to {states} follows" in (out / "README.md").read_text()
    argv = ["--model", MODEL, "--sampler", str(out), "--nfe"]
    assert sample.main([*argv, str(states)]) == 0
    capsys.readouterr()
    advice = "distil again with a larger `--num-states`."
    fails(capsys, "lsd-sample", [*argv, str(states + 1)], f"[1, {states}]", f"got {states + 1}: {advice}")


def test_a_relative_path_is_not_taken_for_a_hub_id_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for flag in ("--model", "--pipeline"):
        fails(capsys, "lsd-train", [flag, "models/none"], "Error: There is no folder 'models/none' here, and it")
    argv = ["--model", MODEL, "--sampler", "models/none"]
    fails(capsys, "lsd-sample", argv, "`--sampler`", "There is no folder 'models/none' here, and")
    fails(capsys, "lsd-train", ["--pipeline", BOOKS], f"`--pipeline` {BOOKS!r} is a model", "use `--model`")
    assert not list(tmp_path.iterdir())


def test_known_mistakes_of_sample(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lsd, table = str(folders["lsd"]), str(folders["path_kl"])
    base = ["--model", MODEL]
    fails(capsys, "lsd-sample", ["--model", "radx"], "'radx'", "Did you mean 'radd'?")
    fails(capsys, "lsd-sample", [*base, "--sampler", lsd, "--nfe", "16"], "[4, 8]", "16", "lsd-train --nfe")
    fails(capsys, "lsd-sample", [*base, "--sampler", table, "--nfe", "33"], "33", "32", "only 32 tokens")
    missing = str(tmp_path / "no" / "such" / "sampler")
    fails(capsys, "lsd-sample", [*base, "--sampler", missing], "--sampler", missing)
    fails(capsys, "lsd-sample", [*base, "--sampler", str(tmp_path)], "scheduler_config.json")
    fails(capsys, "lsd-sample", ["--model", "countdown:V=9,L=32", "--sampler", lsd], "mask_token_id")
    fails(capsys, "lsd-sample", [*base, "--prefix", "once"], "prefix", "tokenizer")
    fails(capsys, "lsd-sample", [*base, "--temperature", "-1"], "temperature")
    fails(capsys, "lsd-sample", [*base, "--output", str(tmp_path)], str(tmp_path))
    assert not list(tmp_path.iterdir())


# ---- lsd-eval ----


def test_evaluate(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--model", MODEL, "--sampler", *map(str, folders.values()), "--num-samples", "64"]
    argv += ["--baselines", "tweedie", "tweedie:halton:cosine", "--output-dir", str(tmp_path)]
    assert evaluate.main(argv) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == f"Output folder: {tmp_path}"
    table = out.split("\n", 1)[1]
    assert (tmp_path / "table.txt").read_text() == table
    rows = [line.split() for line in table.split("\n\n")[0].splitlines()[2:]]
    expected = [(name, str(M)) for name in ("tweedie", "tweedie:halton:cosine", "path_kl") for M in (4, 8, 16, 32)]
    expected += [("lsd", "4"), ("lsd", "8")]
    assert [tuple(row[:2]) for row in rows[:-1]] == expected
    assert rows[-1][:2] == ["real", "data"]
    assert "lsd has no numbers for 16 steps" in err
    assert (tmp_path / "quality_vs_nfe.png").read_bytes().startswith(b"\x89PNG\r\n")
    kept = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["sampler"], str(row["nfe"])) for row in kept] == expected
    assert all(0 < row["network_calls"] <= row["nfe"] and row["num_samples"] == 64 for row in kept)
    kl = {(row["sampler"], row["nfe"]): row["reverse_kl"] for row in kept}
    assert kl["path_kl", 4] < kl["tweedie", 4]

    # with --resume finished rows are reused: nothing is generated again
    assert evaluate.main([*argv, "--resume"]) == 0
    again = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert again == kept


def test_evaluate_tells_samplers_of_one_name_apart(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for parent in ("a", "b"):
        shutil.copytree(folders["lsd"], tmp_path / parent / "same")
    monkeypatch.chdir(tmp_path)
    argv = ["--model", MODEL, "--baselines", "--nfe", "4", "--num-samples", "8", "--sampler", "a/same", "b/same"]
    assert evaluate.main(argv) == 0
    lines = capsys.readouterr().out.split("\n\n")[0].splitlines()[3:]
    assert [line.split()[0] for line in lines] == ["same", "b/same", "real"]
    monkeypatch.chdir(tmp_path / "a" / "same")
    assert evaluate.main([*argv[:-3], "--sampler", ".", "--output-dir", str(tmp_path / "eval")]) == 0
    assert capsys.readouterr().out.splitlines()[3].startswith("same ")


def test_evaluate_does_without_matplotlib(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    argv = ["--model", MODEL, "--nfe", "4", "--num-samples", "8", "--output-dir", str(tmp_path / "out")]
    assert evaluate.main(argv) == 0
    out, err = capsys.readouterr()
    assert "tweedie" in out and "matplotlib" in err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "metrics.jsonl",
        "report.html",
        "summary.json",
        "table.txt",
    }


def test_known_mistakes_of_evaluate(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--model", MODEL, "--num-samples", "8", "--output-dir", str(tmp_path / "out")]
    lsd = str(folders["lsd"])
    fails(capsys, "lsd-eval", [*base, "--baselines"], "--sampler", "--baselines")
    fails(capsys, "lsd-eval", [*base, "--baselines", "tweedy"], "`solver`", "Did you mean 'tweedie'?")
    fails(
        capsys,
        "lsd-eval",
        [*base, "--baselines", "tweedie:halton:cosine:8"],
        "SOLVER[@OPTION=VALUE,...][:ORDER[:SCHEDULE]]",
    )
    for baselines in ([], ["tweedie"]):
        more = ["--baselines", *baselines, "--sampler", lsd, "--nfe", "16", "32"]
        fails(capsys, "lsd-eval", [*base, *more], "`--sampler` lsd", "16 32", "[4, 8]")
    fails(capsys, "lsd-eval", [*base, "--sampler", str(tmp_path / "none")], "--sampler")
    fails(capsys, "lsd-eval", [*base, "--temperatures", "-1"], "temperatures")
    (tmp_path / "empty.txt").touch()
    argv = ["--model", BOOKS, *base[2:], "--reference", str(tmp_path / "empty.txt")]
    fails(capsys, "lsd-eval", argv, "`--reference`", "empty.txt", "no text of 128 tokens")
    assert not (tmp_path / "out" / "table.txt").exists()
