"""`lsd-train --report-to`: what is logged reaches a tracker; without one nothing of it is needed."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import records

from lsd_sampler.cli import train
from lsd_sampler.training.tracking import available, flatten, tracking


pytestmark = pytest.mark.usefixtures("no_plots")

ARGV = ["--model", "countdown:V=4,L=16", "--device", "cpu", "--nfe", "2", "4", "--num-sequences", "4"]
ARGV += ["--method", "path_kl"]


def scalars_in(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Name -> (step, value) of all scalars in the event files directly in a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize("method", ["path_kl", "lsd", "lsd+", "jys"])
def test_tensorboard_holds_every_number_that_was_logged(method: str, tmp_path: Path) -> None:
    """Read back from a real event file: each number of metrics.jsonl, at its record's step, and no other."""
    argv = [*ARGV, "--method", method, "--output-dir", str(tmp_path), "--report-to", "tensorboard"]
    assert train.main(argv) == 0
    config, *logged = records(tmp_path)
    found = scalars_in(tmp_path / "lsd_sampler")
    expected: dict[str, list[tuple[int, float]]] = {}
    for step, record in enumerate(logged):
        for name, value in flatten(record).items():
            if not isinstance(value, str):
                expected.setdefault(name, []).append((step, value))
    assert config["event"] == "config" and len(expected) > 10
    assert set(found) == set(expected)
    for name, points in expected.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points]
        assert [v for _, v in found[name]] == pytest.approx([v for _, v in points], rel=1e-6)


def test_a_run_that_is_overwritten_leaves_nothing_in_tensorboard(tmp_path: Path) -> None:
    """Nor may what else lies in a folder of that name be touched."""
    argv = [*ARGV, "--output-dir", str(tmp_path)]
    folder = tmp_path / "lsd_sampler"
    assert train.main([*argv, "--report-to", "tensorboard", "--teacher-steps", "8"]) == 0
    (folder / "mine").mkdir()
    (folder / "mine" / "hparams.json").write_text("{}")
    before = set(folder.rglob("*"))
    assert train.main([*argv, "--report-to", "tensorboard", "--overwrite"]) == 0
    steps = [step for points in scalars_in(folder).values() for step, _ in points]
    assert max(steps) == len(records(tmp_path)) - 2 and len(set(folder.rglob("*.tfevents.*")) & before) == 0
    assert len(list(folder.glob("*/hparams.yml"))) == 1
    assert train.main([*argv, "--overwrite"]) == 0
    assert [path for path in folder.rglob("*") if path.is_file()] == [folder / "mine" / "hparams.json"]


def test_a_record_is_flattened_to_numbers_and_words() -> None:
    record = {
        "event": "schedule", "nfe": 8, "path_kl": 0.5, "known_after_step": [1, 4], "by": {"a": {"b": 2}},
        "is_image": True, "source": "data", "nothing": None, "empty": [],
    }  # fmt: skip
    assert flatten(record) == {
        "schedule/nfe_8/path_kl": 0.5,
        "schedule/nfe_8/known_after_step/0": 1,
        "schedule/nfe_8/known_after_step/1": 4,
        "schedule/nfe_8/by/a/b": 2,
        "schedule/nfe_8/is_image": 1,
        "schedule/nfe_8/source": "data",
    }
    assert flatten({"event": "done", "network_calls": 3}) == {"done/network_calls": 3}


def test_the_sampler_does_not_depend_on_who_is_told(tmp_path: Path) -> None:
    for name, more in (("alone", []), ("told", ["--report-to", "tensorboard"])):
        assert train.main([*ARGV, "--output-dir", str(tmp_path / name), *more]) == 0
    for name in ("scheduler_model.safetensors", "scheduler_config.json"):
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "told" / name).read_bytes()
    assert not (tmp_path / "alone" / "lsd_sampler").exists()


@pytest.mark.parametrize(
    ("report_to", "words"),
    [
        (["tensorbord"], ["--report-to", "'tensorbord'", "tensorboard", "none"]),
        (["none", "tensorboard"], ["--report-to", "'none'"]),
        (["tensorboard", "aim"], ["--report-to aim", "not installed", "pip install aim"]),
    ],
)
def test_a_tracker_that_cannot_be_had_is_named_before_the_work(
    report_to: list[str],
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(train, "load_pipeline", lambda *_: pytest.fail("the work began"))
    assert train.main([*ARGV, "--output-dir", str(tmp_path / "out"), "--report-to", *report_to]) == 1
    out, err = capsys.readouterr()
    assert not out and err.startswith("Error: ") and err.count("\n") == 1
    assert all(word in err for word in words), err
    assert not (tmp_path / "out").exists()


def test_accelerate_missing_is_said_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate.tracking", None)
    assert available(["none"]) == available([]) == []
    with pytest.raises(ValueError, match=r"--report-to.*accelerate.*lsd_sampler\[train\]"):
        available(["tensorboard"])


def test_all_means_all_that_are_installed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import accelerate.tracking

    assert "tensorboard" in available(["all"]) and "all" not in available(["all"])
    monkeypatch.setattr(accelerate.tracking, "get_available_trackers", lambda: [])
    assert available(["all"]) == [] and "No tracker is installed" in capsys.readouterr().err


def test_a_tracker_that_fails_is_done_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the start it is a sentence; on the way, a warning, and the run goes on."""
    from accelerate.tracking import TensorBoardTracker

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("No connection.\nmore lines")

    argv = [*ARGV, "--output-dir", str(tmp_path / "out"), "--report-to", "tensorboard"]
    with monkeypatch.context() as patch:
        patch.setattr(TensorBoardTracker, "start", fails)
        assert train.main(argv) == 1
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert last == "Error: `--report-to tensorboard` cannot be started: No connection."
    monkeypatch.setattr(TensorBoardTracker, "log", fails)
    assert train.main(argv) == 0
    err = capsys.readouterr().err
    assert err.count("tensorboard failed and is done without: No connection.") == 1
    assert records(tmp_path / "out")[-1]["event"] == "done"


def test_a_tracker_is_finished_when_the_run_breaks(tmp_path: Path) -> None:
    with pytest.raises(KeyError), tracking(["tensorboard"], tmp_path, {"nfe": [4, 8], "order": None}) as track:
        track({"event": "teacher", "steps": 16, "loss": math.nan})
        raise KeyError
    assert scalars_in(tmp_path / "lsd_sampler")["teacher/steps"] == [(0, 16.0)]


def test_no_tracker_is_imported_unless_asked_for(tmp_path: Path) -> None:
    """Neither by the package nor by a run that reports to none."""
    code = f"""
import sys
from diffusers import DiffusionPipeline, SchedulerMixin
before = set(sys.modules)
from lsd_sampler.cli import train
code = train.main({[*ARGV, "--output-dir", str(tmp_path / "out")]!r})
heavy = ("accelerate", "tensorboard", "trackio", "wandb", "torch.utils.tensorboard")
print(code, [name for name in heavy if name in set(sys.modules) - before])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "0 []"
