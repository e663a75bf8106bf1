"""Classes and guidance in `lsd-eval`, also of canvases to fill in and of tasks."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.tiny_garments import save_garments

from lsd_sampler.cli import evaluate
from lsd_sampler.cli.evaluation_classes import classes_of
from lsd_sampler.evaluation import read_jsonl


SWEPT = "entropy_bounded@gamma=0.1/10"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_garments(tmp_path / "model")
    return tmp_path


def run(folder: Path, *more: str) -> dict[str, Any]:
    argv = ["--model", str(folder / "model"), "--nfe", "2", "--output-dir", str(folder / "out"), *more]
    assert evaluate.main(argv) == 0
    return json.loads((folder / "out" / "summary.json").read_text())


def write(path: Path, lines: list[Any]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.mark.parametrize("num_classes", [None, 1])
def test_a_model_of_one_class_is_asked_for_none(num_classes: int | None) -> None:
    """The layout has room for a class even where a network was trained without."""
    assert classes_of(SimpleNamespace(num_classes=num_classes)) == {}


def test_a_model_without_classes_has_no_guidance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--model", "countdown:V=4,L=8", "--guidance-scale", "1", "--output-dir", str(tmp_path / "out")]
    assert evaluate.main(argv) == 1
    assert "`--guidance-scale`: countdown:V=4,L=8 knows no classes" in capsys.readouterr().err


def test_equal_canvases_are_of_one_class(folder: Path) -> None:
    denoiser = save_garments(folder / "model")
    (whole,) = classes_of(denoiser).values()
    assert whole.tolist() == [0, 1, 2, 3, 4]
    canvases = [torch.full((9,), i) for i in (0, 1, 2, 0, 1, 2, 3, 4, 5, 6)]
    (labels,) = classes_of(denoiser, canvases).values()
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 0, 1]


def test_fills_of_a_canvas_vary_by_the_draws_alone(folder: Path) -> None:
    """One hole, filled in with the likeliest token: two fills of a canvas are equal, as they are of one class."""
    lines = [[i % 7] * 8 + [-1] for i in range(21)]
    argv = ["--infill", write(folder / "lines.jsonl", lines), "--num-samples", "42", "--temperatures", "0"]
    summary = run(folder, *argv, "--nfe", "1", "--guidance-scale", "3")
    assert summary["protocol"]["Classes"] == "in turn, one for each canvas"
    (row,) = summary["rows"]
    assert row["fills_differ"] == 0 and row["guidance_scale"] == 3


def test_fills_of_the_canvases_of_an_oracle_are_of_one_class_too(folder: Path) -> None:
    """The oracle makes the canvases, each for two fills."""
    argv = ["--oracle", "countdown:V=7,L=9,clues=8", "--num-samples", "42", "--temperatures", "0"]
    summary = run(folder, *argv, "--nfe", "1", "--guidance-scale", "3")
    assert summary["rows"][0]["fills_differ"] == 0
    assert summary["protocol"]["Classes"] == "in turn, one for each canvas"


def test_guidance_is_chosen_on_the_other_half_of_the_tasks(folder: Path) -> None:
    """With one temperature. A swept constant has its own."""
    items = [{"canvas": [i % 7] * 5 + [None] * 4, "answer": [i % 7] * 8 + [i % 5]} for i in range(12)]
    (folder / "checks_of_garments.py").write_text("def ends(output, item):\n    return output[-1] < 3\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        argv = ["--tasks", write(folder / "tasks.jsonl", items), "--checker", "checks_of_garments:ends"]
        argv += ["--baselines", "tweedie", SWEPT, "--temperatures", "1", "--guidance-scale", "0", "4"]
        summary = run(folder, *argv, "--num-samples", "30")
    chosen, judged = (read_jsonl(folder / "out" / f"{name}.jsonl") for name in ("choosing", "metrics"))
    assert {row["guidance_scale"] for row in chosen} == {0, 4}
    assert len({row["sampler"] for row in chosen}) == 3 and len(judged) == 3
    assert {row["yardstick"] for row in chosen}.isdisjoint(row["yardstick"] for row in judged)
    for row in judged:
        tried = {t["guidance_scale"]: t["wrong_share"] for t in chosen if t["sampler"] == row["sampler"]}
        assert len(tried) == 2 and tried[row["guidance_scale"]] == min(tried.values())
        assert row["mean_calls"] >= 1
    assert [row["guidance_scale"] for row in summary["curves"]] == [
        row["guidance_scale"] for row in judged if row["sampler"] != "tweedie"
    ]
    assert summary["protocol"]["Guidance"].startswith("each sampler's best of 0, 4")
    table = (folder / "out" / "table.txt").read_text()
    assert table.count("guidance") >= 2 and "has the fewest wrong answers" in table
