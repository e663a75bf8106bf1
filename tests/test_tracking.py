"""`--report-to`: what is measured reaches the trackers of accelerate; a run needs none, and no tracker stops one."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lsd_sampler import DistillConfig, cards
from lsd_sampler.cli import train
from lsd_sampler.training.tracking import available_trackers, hyperparameters, scalars, tracking


TINY = ["--model", "countdown:V=4,L=8", "--method", "lsd", "--nfe", "2", "3", "--num-sequences", "4"]


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "_plot", lambda *_: False)


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_tensorboard_files_hold_what_was_measured(tmp_path: Path) -> None:
    """Every number of metrics.jsonl, in single precision, at the step of its record."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert train.main([*TINY, "--output-dir", str(tmp_path), "--report-to", "tensorboard"]) == 0
    events = reader.EventAccumulator(str(tmp_path / "logs" / "lsd_sampler")).Reload()
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    expected = {
        tag: [(step, pytest.approx(value, rel=1e-6))]
        for step, record in enumerate(records(tmp_path)[1:])  # the first are the options
        for tag, value in scalars(record).items()
    }
    assert found == expected
    assert "coefficients/nfe-3/log_score_coefficients/2" in found and "done/network_calls" in found


def test_all_is_what_is_installed_and_none_is_nothing(tmp_path: Path) -> None:
    from accelerate.tracking import get_available_trackers

    assert available_trackers(["none"]) == []
    if get_available_trackers():
        assert available_trackers(["all"]) == [str(name) for name in get_available_trackers()]
    assert train.main([*TINY, "--output-dir", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out" / "logs").exists()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["tensorbord"], ["'tensorbord'", "tensorboard", "wandb"]),
        (["none", "tensorboard"], ["none, all, or some of"]),
        (["swanlab"], ["`--report-to swanlab`", "pip install swanlab"]),
    ],
)
def test_known_mistakes(
    names: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: ["tensorboard"])
    assert train.main([*TINY, "--output-dir", str(tmp_path / "out"), "--report-to", *names]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: ") and all(word in line for word in words), line
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [])
    with pytest.raises(ValueError, match="pip install tensorboard"):
        available_trackers(["all"])
    monkeypatch.setitem(sys.modules, "accelerate.tracking", None)
    with pytest.raises(ValueError, match=r"pip install lsd_sampler\[train\]"):
        available_trackers(["tensorboard"])


def test_a_tracker_that_cannot_start_ends_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logs").write_text("no folder")
    assert train.main([*TINY, "--output-dir", str(tmp_path), "--report-to", "tensorboard"]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("Error: `--report-to tensorboard` could not be started: ")


def test_a_tracker_that_fails_on_the_way_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.tracking import TensorBoardTracker

    calls = []

    def fails(self: Any, values: dict[str, float], step: int) -> None:
        calls.append(step)
        if step == 1:
            raise ConnectionError("the server is gone")

    monkeypatch.setattr(TensorBoardTracker, "log", fails)
    assert train.main([*TINY, "--output-dir", str(tmp_path), "--report-to", "tensorboard"]) == 0
    assert "tensorboard gets no more records: the server is gone" in capsys.readouterr().err
    assert calls == [0, 1] and records(tmp_path)[-1]["event"] == "done"


def test_trackers_are_ended_when_the_run_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.tracking import TensorBoardTracker

    ended = []
    monkeypatch.setattr(TensorBoardTracker, "finish", lambda self: ended.append(self.name))
    with pytest.raises(KeyboardInterrupt), tracking(["tensorboard"], tmp_path, DistillConfig(), cpu=True) as log:
        log({"event": "done", "seconds": 1.0})
        raise KeyboardInterrupt
    assert ended == ["tensorboard"]


def test_every_number_has_a_name_of_its_own() -> None:
    record = {
        "event": "coefficients", "candidate": "lsd:random", "nfe": 2, "domain": "score", "network_calls": 7,
        "score_coefficients": [1.0, math.inf], "adopted": True, "left_out": None, "seconds": 0.5,
    }  # fmt: skip
    place = "coefficients/lsd-random/nfe-2"
    assert scalars(record) == {
        f"{place}/network_calls": 7.0,
        f"{place}/score_coefficients/0": 1.0,
        f"{place}/score_coefficients/1": math.inf,
        f"{place}/adopted": 1.0,
        f"{place}/seconds": 0.5,
    }


def test_hyperparameters_are_single_values() -> None:
    options = hyperparameters(DistillConfig(method="lsd", nfe=(4, 8)))
    assert options["nfe"] == "4 8" and options["method"] == "lsd"
    assert all(isinstance(value, str | int | float) for value in options.values())


def test_no_tracker_is_imported_unless_asked_for(tmp_path: Path) -> None:
    """Neither by the package nor by a run; diffusers imports accelerate by itself where it is installed."""
    names = ["tensorboard", "torch.utils.tensorboard", "trackio", "wandb", "accelerate.tracking"]
    code = f"""
import sys
from lsd_sampler import cards
import diffusers, transformers
from diffusers import DiffusionPipeline
before = set(sys.modules)
from lsd_sampler.cli import train
cards._plot = lambda *_: False
code = train.main({[*TINY, "--output-dir", str(tmp_path)]!r})
print(code, [name for name in {names} if name in set(sys.modules) - before])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "0 []"
