"""`lsd-eval --tasks` end to end: right answers of an exact model and of a text model, and what is refused."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.ddit_checkpoints import RADD
from tokenizers import Tokenizer, models

from lsd_sampler.cli import evaluate
from lsd_sampler.denoisers import RADDDenoiser
from lsd_sampler.evaluation import read_jsonl


SUDOKUS = ["--model", "sudoku4", "--tasks", "sudoku:clues=4,size=4", "--nfe", "2", "12"]
SWEPT = "entropy_bounded@gamma=0.01/1/10"


def run(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    assert evaluate.main([*arguments, "--output-dir", str(tmp_path)]) == 0
    return json.loads((tmp_path / "summary.json").read_text())


def test_an_exact_model_is_right_at_one_token_a_call(tmp_path: Path) -> None:
    """And not at two calls. A bound on the entropy takes the more calls the lower it is; each is listed and drawn."""
    argv = [*SUDOKUS, "--num-samples", "100", "--temperatures", "1", "--baselines", "tweedie", SWEPT]
    summary = run(tmp_path, *argv)
    rows = {(row["sampler"], row["nfe"]): row for row in summary["rows"]}
    few, many = rows["tweedie", 2], rows["tweedie", 12]
    assert many["right_share"] == 1 and few["right_share"] < 0.6
    assert few["right_share_low"] < few["right_share"] < few["right_share_high"]
    assert (few["tokens_per_call"], many["tokens_per_call"]) == (6, 1)
    assert summary["verdict"] == "wrong_share" and summary["floor"] is None
    curve = summary["curves"]
    assert [row["sampler"] for row in curve] == [f"entropy_bounded@gamma={gamma}" for gamma in ("0.01", "1", "10")]
    careful, _, careless = curve
    assert careless["mean_calls"] < 2 < careful["mean_calls"] and careful["right_share"] > careless["right_share"]
    assert careful["read"] == careless["read"] == "yes"
    between, beyond = rows[SWEPT, 2], rows[SWEPT, 12]
    assert careless["right_share"] < between["right_share"] < careful["right_share"] and between["mean_calls"] == 2
    assert beyond["right_share"] == careful["right_share"] and beyond["mean_calls"] == careful["mean_calls"]
    assert beyond["right_share_low"] == pytest.approx(careful["right_share_low"])
    assert {row["sampler"] for row in summary["aup"]} == {"tweedie", SWEPT}
    table, page = ((tmp_path / name).read_text() for name in ("table.txt", "report.html"))
    assert "has the fewest wrong answers" in table and "AUP" in table
    for row in curve:
        assert row["sampler"] in table and row["sampler"] in page
    assert "Right answers against calls" in page and (tmp_path / "accuracy.png").exists()
    assert "Tasks" in summary["protocol"] and not (tmp_path / "choosing.jsonl").exists()


def test_temperatures_are_chosen_on_the_other_half(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rows of the two halves are of other items, and a run that goes on makes none again."""
    argv = [*SUDOKUS, "--num-samples", "20", "--temperatures", "0", "1", "--baselines", "tweedie", "tweedie:halton"]
    summary = run(tmp_path, *argv)
    chosen, judged = (read_jsonl(tmp_path / f"{name}.jsonl") for name in ("choosing", "metrics"))
    assert (len(chosen), len(judged)) == (8, 4)
    assert {row["yardstick"] for row in chosen}.isdisjoint(row["yardstick"] for row in judged)
    for row in judged:
        trials = [t for t in chosen if (t["sampler"], t["nfe"]) == (row["sampler"], row["nfe"])]
        tried = {trial["temperature"]: trial["wrong_share"] for trial in trials}
        assert tried[row["temperature"]] == min(tried.values())
    assert summary["protocol"]["Temperatures"].endswith("chosen on the other half of the items")
    stamps = [(tmp_path / f"{name}.jsonl").read_text() for name in ("choosing", "metrics")]
    assert run(tmp_path, *argv, "--resume")["rows"] == summary["rows"]
    assert [(tmp_path / f"{name}.jsonl").read_text() for name in ("choosing", "metrics")] == stamps
    assert "not reused" not in capsys.readouterr().err
    (tmp_path / "metrics.jsonl").unlink()  # as where a run was stopped while it chose
    assert evaluate.main([*argv, "--output-dir", str(tmp_path)]) == 1
    assert "8 finished rows" in capsys.readouterr().err and (tmp_path / "choosing.jsonl").read_text() == stamps[0]


def test_the_law_of_an_oracle_says_what_the_rule_says(tmp_path: Path) -> None:
    argv = [*SUDOKUS, "--num-samples", "50", "--temperatures", "1", "--baselines", "tweedie"]
    by_rule, by_law = (run(tmp_path / str(i), *argv, *more) for i, more in enumerate(([], ["--checker", "valid"])))
    shares = [[row["right_share"] for row in found["rows"]] for found in (by_rule, by_law)]
    assert shares[0] == shares[1] and 0 < shares[0][0] < 1


# ---- a text model ----

LETTERS = "abcdef "
OWN = """
def begins(output, item):
    return output[:1] in item["letters"]

def never(output, item):
    raise KeyError(item["nothing"])
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model of seven letters, tasks and a checker."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    RADDDenoiser(RADD | {"tokens": len(LETTERS)}).save_pretrained(tmp_path / "model")
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(LETTERS)}, merges=[]))
    tokenizer.save(str(tmp_path / "model" / "tokenizer.json"))
    (tmp_path / "own_checks_of_letters.py").write_text(OWN)
    items = [{"prompt": "abc", "answer": "x", "letters": LETTERS[: 1 + i % 7]} for i in range(14)]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    monkeypatch.delitem(sys.modules, "own_checks_of_letters", raising=False)
    return tmp_path


def test_a_file_and_a_checker_of_ones_own(here: Path) -> None:
    """Every item once, or several times: then answers vary."""
    argv = [
        "--model",
        "model",
        "--tasks",
        "tasks.jsonl",
        "--nfe",
        "2",
        "--temperatures",
        "1",
        "--baselines",
        "tweedie",
    ]
    own = ["--checker", "own_checks_of_letters:begins"]
    (row,) = run(here / "once", *argv, *own)["rows"]
    assert row["num_samples"] == 14 and 0 < row["right_share"] < 1 and row["distinct_answers"] == 1
    (row,) = run(here / "often", *argv, *own, "--num-samples", "70")["rows"]
    assert row["num_samples"] == 70 and 1 < row["distinct_answers"] <= 5
    (row,) = run(here / "exact", *argv)["rows"]
    assert row["right_share"] == 0


def test_nothing_is_imported_unless_it_is_named(here: Path) -> None:
    run(here / "out", "--model", "model", "--tasks", "tasks.jsonl", "--nfe", "2", "--temperatures", "1")
    assert "own_checks_of_letters" not in sys.modules


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--checker", "own_checks_of_letters:never"], ["`checker`", "item 0", "KeyError"]),
        (["--checker", "own_checks_of_letters:begin"], ["`--checker`", "Did you mean 'begins'"]),
        (["--checker", "valid"], ["`--checker`", "oracle"]),
        (["--tasks", "nothing.jsonl"], ["`--tasks`", "neither a file"]),
        (["--tasks", "sudoku:clues=3"], ["`--tasks`, item 0"]),
        (["--judge", "gpt2"], ["`--judge`", "`--tasks`"]),
        (["--infill", "tasks.jsonl"], ["`--infill`", "`--tasks`"]),
        (["--frontier"], ["`--frontier`", "`--tasks`"]),
        (["--oracle", "sudoku4"], ["`--oracle`", "`--checker valid`"]),
        (["--baselines", SWEPT], ["`--baselines`", "the first is the base"]),
        (["--baselines", "tweedie", "entropy_bounded@gamma=1//2"], ["`--baselines`", "empty or a repeated"]),
        (["--baselines", "tweedie", "entropy_bounded@gama=1/2"], ["`solver_options`", "gama"]),
        (["--length", "3"], ["`--tasks`, item 0", "no room"]),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    more: list[str], words: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--model", "model", "--tasks", "tasks.jsonl", "--nfe", "2", "--output-dir", "out", *more]
    assert evaluate.main(argv) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("Error: ") and all(word in last for word in words), last


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--checker", "exact"], ["`--checker`", "`--tasks`"]),
    ],
)
def test_flags_of_tasks_need_tasks(more: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--model", "countdown:V=4,L=16", *more]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("Error: ") and all(word in last for word in words), last
