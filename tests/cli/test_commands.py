"""The commands end to end on tiny oracles: results, exit codes, and one sentence for each known mistake."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import BOOKS, COMMANDS, MODEL, TINY, fails

from lsd_sampler.cli import evaluate


pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        COMMANDS[command].main(["--help"])
    assert stop.value.code == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: {command}") and "--model" in out and not err


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
