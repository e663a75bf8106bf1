"""`lsd-eval` tells how the fills of partly given canvases vary: clues of an oracle, and lines of `--infill`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_language_models import MASKED_LMS, WORDS

from lsd_sampler.cli import evaluate
from lsd_sampler.denoisers import sudoku4
from lsd_sampler.denoisers.oracle import Oracle
from lsd_sampler.denoisers.oracle_names import make_oracle


GRID = [0, 1, 2, 3, 2, 3, 0, 1, 1, 0, 3, 2, 3, 2, 1, 0]


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def summary_of(model: str | Path, out: Path, *more: str) -> dict[str, Any]:
    argv = ["--model", str(model), "--output-dir", str(out), "--overwrite", *more]
    assert evaluate.main(argv) == 0
    return json.loads((out / "summary.json").read_text())


def canvases_of(name: str, num: int) -> tuple[Oracle, list[list[int]]]:
    oracle = make_oracle(name)
    canvases, _ = oracle.canvases(num, torch.Generator().manual_seed(0))
    return oracle, canvases.tolist()


def test_exact_fills_of_lines_vary_as_much_as_the_truth(tmp_path: Path) -> None:
    """One token a call of an exact oracle, whose own fill stands for the truth; each of 60 lines has 16 fills. Over
    other seeds, the difference of the two shares has a standard deviation of 0.014, and 0.07 is 5 of them: a right
    command fails 6 times in 10 million.
    """
    _, canvases = canvases_of("sudoku4:clues=4", 60)
    file = write(tmp_path / "a.jsonl", canvases)
    more = ["--infill", str(file), "--nfe", "12", "--num-samples", "960"]
    summary = summary_of("sudoku4", tmp_path / "out", *more)
    (many,) = summary["rows"]
    for row in (many, summary["floor"]):
        assert row["valid_share"] == 1 and abs(row["fills_differ"] - row["fill_error"]) < 0.07
        assert 0 < row["fills_differ_low"] < row["fills_differ"] < row["fills_differ_high"] < 0.6
        assert 0 < row["fill_error_low"] < row["fill_error"] < row["fill_error_high"] < 0.6
    table = (tmp_path / "out" / "table.txt").read_text()
    assert "fills differ" in table and "fill / truth" in table
    # no random parts of grids: an exact sampler has not the law of the set, so it is not compared with that
    assert summary["verdict"] == "invalid_share" and "spread_ratio" not in many
    assert summary["protocol"]["Real data"] == "the model's own teacher, one token a step"


def test_a_sampler_without_variety_shows(tmp_path: Path) -> None:
    """A chain at a low temperature: its fills are alike, and still all allowed."""
    _, canvases = canvases_of("hmm:V=4,L=8,clues=2", 30)
    file = write(tmp_path / "a.jsonl", canvases)
    more = ["--infill", str(file), "--nfe", "6", "--num-samples", "240", "--temperatures", "0.2"]
    summary = summary_of("hmm:V=4,L=8", tmp_path / "out", *more)
    (row,), floor = summary["rows"], summary["floor"]
    assert row["fills_differ_high"] < min(row["fill_error_low"], floor["fills_differ_low"])
    assert row["fill_error_low"] < floor["fills_differ"] < row["fill_error"] + 0.2


def test_the_truth_of_the_file_is_the_one_that_counts(tmp_path: Path) -> None:
    """One hole, one right token: the oracle never differs from it, and always from a wrong one in the file."""
    canvas = [-1, *GRID[1:]]
    for truth, error in ((GRID, 0), ([3, *GRID[1:]], 1)):
        file = write(tmp_path / "a.jsonl", [{"ids": canvas, "truth": truth}])
        more = ["--infill", str(file), "--nfe", "1", "--num-samples", "6"]
        (row,) = summary_of("sudoku4", tmp_path / "out", *more)["rows"]
        assert row["fill_error"] == error and row["fills_differ"] == 0


def test_texts_of_any_length_have_variety_too(tmp_path: Path) -> None:
    """The truth is known where the file holds it, and the floor is of the same canvases in the same places."""
    torch.manual_seed(0)
    MASKED_LMS["bert"](tmp_path / "bert")
    lines = [
        {"text": "the [MASK] sat on a [MASK]"},
        {"text": "[MASK] me", "truth": "the me"},
        {"text": "[MASK] it ran"},
    ]
    file = write(tmp_path / "a.jsonl", lines)
    real = tmp_path / "real.txt"
    real.write_text("\n".join([" ".join(WORDS)] * 40))
    more = ["--infill", str(file), "--nfe", "2", "--num-samples", "18", "--batch-size", "5", "--temperatures", "1"]
    for reference in ([], ["--reference", str(real)]):
        summary = summary_of(tmp_path / "bert", tmp_path / "out", *more, *reference)
        for row in (*summary["rows"], summary["floor"]):
            assert 0.5 < row["fills_differ"] <= 1 and 0 < row["fill_error"] <= 1  # 18 words, nearly uniform
        first, second, _ = (tmp_path / "out" / "table.txt").read_text().split("\n\n")
        assert "fills differ  fill / truth" in first.splitlines()[0] and "differ low" in second.splitlines()[0]
    file = write(tmp_path / "a.jsonl", [{"text": line["text"]} for line in lines])
    row = summary_of(tmp_path / "bert", tmp_path / "out", *more)["rows"][0]
    assert "fills_differ" in row and "fill_error" not in row


def test_lines_that_are_filled_in_once_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shares are of what was filled in twice; a note says how many samples that takes."""
    _, canvases = canvases_of("sudoku4:clues=4", 6)
    more = ["--infill", str(write(tmp_path / "a.jsonl", canvases)), "--nfe", "12", "--num-samples"]
    (row,) = summary_of("sudoku4", tmp_path / "out", *more, "6")["rows"]
    assert "fills_differ" not in row and "fill_error" in row
    assert "With 6 canvases and `--num-samples` 6" in capsys.readouterr().err
    assert "fills_differ" in summary_of("sudoku4", tmp_path / "out", *more, "7")["rows"][0]
    assert "`--num-samples` 12 gives them" in capsys.readouterr().err
    assert "fills_differ" in summary_of("sudoku4", tmp_path / "out", *more, "12")["rows"][0]
    assert "canvases and" not in capsys.readouterr().err


@pytest.mark.parametrize("clues", [0, 4])
def test_a_set_judges_another_model_from_its_clues(clues: int, tmp_path: Path) -> None:
    """Half of the other model's weight is on one impossible grid. Without clues that is half of its samples; 4 clues
    of a real grid nearly always exclude it. The other samples are spread as they should be: the ratio has a standard
    deviation of 0.08.
    """
    grids = sudoku4().sequences
    table = "\n".join(" ".join(map(str, row)) for row in [*grids.tolist(), *[[0, 1, 2, 3] * 4] * 288])
    (tmp_path / "grids.txt").write_text(table)
    more = ["--oracle", f"sudoku4:clues={clues}", "--nfe", "16", "--num-samples", "400"]
    summary = summary_of(f"table:{tmp_path}/grids.txt", tmp_path / "out", *more)
    (row,), floor = summary["rows"], summary["floor"]
    assert floor["valid_share"] == 1 and ("fills_differ" in row) == bool(clues)
    # without clues, 400 fair coins: 0.025 is a standard deviation
    assert 0.375 < row["valid_share"] < 0.625 if not clues else 0.8 < row["valid_share"] <= 1
    assert row["distinct_valid"] > 100 and row["spread_ratio"] < 1.5


# ---- the sequences behind the canvases ----


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        ([3, 2], "`truth` must have the 3 tokens of its canvas, got 2"),
        ([3, 2, 0], "`truth` must have the tokens that its canvas gives, got 0 in place of 1 at position 2"),
        ([3, 4, 1], "`truth` must have no mask"),
        ([3, -1, 1], "`truth` must have no mask"),
        (7, "`truth` must be a list of token ids, got 7"),
        ("3 2 1", "`truth` must be a list of token ids, got '3 2 1'"),
        ([3, 9, 1], "9"),
        ([3, "a", 1], "token ids"),
    ],
)
def test_a_truth_that_does_not_fit_is_named(
    truth: Any, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "a.jsonl", [{"ids": [3, 2, -1]}, {"ids": [3, -1, 1], "truth": truth}])
    argv = ["--model", "countdown:V=4,L=16", "--infill", str(file), "--output-dir", str(tmp_path / "out")]
    assert evaluate.main(argv) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "`--infill`" in error and "a.jsonl', line 2: " in error and words in error
    assert not (tmp_path / "out").exists()
