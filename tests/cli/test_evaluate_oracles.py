"""`lsd-eval` of exact oracles: sets, chains and canvases with clues."""

import json
from pathlib import Path

import pytest

from lsd_sampler.cli import evaluate
from lsd_sampler.denoisers import sudoku4


@pytest.mark.parametrize("clues", [0, 4])
def test_the_command_tells_samplers_of_a_set_apart(clues: int, tmp_path: Path) -> None:
    """One token a call is exact; two calls are not. And the row of real data is there."""
    argv = [
        "--model",
        f"sudoku4:clues={clues}",
        "--nfe",
        "2",
        "16",
        "--num-samples",
        "300",
        "--output-dir",
        str(tmp_path),
    ]
    assert evaluate.main(argv) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    few, many, real = *summary["rows"], summary["floor"]
    assert many["valid_share"] == real["valid_share"] == 1 and few["valid_share"] < 0.4
    assert summary["verdict"] == ("invalid_share" if clues else "sequence_l2")
    assert ("fills_differ" in real) == bool(clues) and summary["protocol"]["Real data"].startswith("exact samples")
    assert "valid" in (tmp_path / "table.txt").read_text() and (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    "name", ["hmm:S=3,V=4,L=16,clues=2", "markov2:V=3,L=16", "hmm:V=5,L=16", "countdown:V=4,L=16,clues=3"]
)
def test_the_command_prints_the_rates_of_chains(name: str, tmp_path: Path) -> None:
    argv = ["--model", name, "--nfe", "2", "--num-samples", "64", "--output-dir", str(tmp_path)]
    assert evaluate.main(argv) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["rows"][0]["full_kl_rate"] > 0 <= summary["floor"]["full_kl_rate"]
    assert "full KL rate" in (tmp_path / "table.txt").read_text()
    assert ("fills differ" in (tmp_path / "table.txt").read_text()) == ("clues" in name)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--num-samples", "1"], "`num_samples` must be at least 2"),
        (["--num-samples", "4", "--frontier", "--temperatures", "0.9", "1"], "`--frontier` needs a likelihood"),
        (["--num-samples", "4", "--judge", "x"], "exact oracle"),
    ],
)
def test_what_a_set_has_no_use_for(
    more: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main(["--model", "hamming", "--nfe", "2", "--output-dir", str(tmp_path), *more]) == 1
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_a_set_judges_the_samples_of_another_model(tmp_path: Path) -> None:
    grids = sudoku4().sequences
    table = "\n".join(" ".join(map(str, row)) for row in [*grids.tolist(), *[[0, 1, 2, 3] * 4] * 288])
    (tmp_path / "grids.txt").write_text(table)  # half of it are no grids
    argv = ["--model", f"table:{tmp_path}/grids.txt", "--oracle", "sudoku4", "--nfe", "16", "--num-samples", "400"]
    assert evaluate.main([*argv, "--output-dir", str(tmp_path / "out")]) == 0
    (row,) = json.loads((tmp_path / "out" / "summary.json").read_text())["rows"]
    # 400 fair coins: 0.025 is a standard deviation
    assert row["valid_share"] == pytest.approx(0.5, abs=0.125) and row["sequence_l2"] > 10


SWEPT = "fast_dllm_threshold@threshold=0.3/0.6/0.9"


@pytest.mark.parametrize(
    ("model", "verdict"), [("countdown:V=6,L=24", "reverse_kl"), ("sudoku4:clues=4", "invalid_share")]
)
def test_a_constant_is_swept_for_distances_too(model: str, verdict: str, tmp_path: Path) -> None:
    """Each value until every sample is complete; the curve is read off at the calls of the others, with intervals."""
    argv = ["--model", model, "--nfe", "1", "4", "24", "--num-samples", "100", "--headline-limit", "24"]
    assert evaluate.main([*argv, "--baselines", "tweedie", SWEPT, "--output-dir", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["verdict"] == verdict and summary["aup"] == []
    curve = summary["curves"]
    assert [row["sampler"].partition("=")[2] for row in curve] == ["0.3", "0.6", "0.9"]
    calls = [row["mean_calls"] for row in curve]
    assert calls == sorted(calls) and calls[0] < calls[-1] <= 24
    read = sorted((row for row in curve if row["read"]), key=lambda row: row["mean_calls"])
    for row in summary["rows"]:
        if row["sampler"] != SWEPT:
            continue
        assert row["nfe"] >= read[0]["mean_calls"] and row["mean_calls"] == min(row["nfe"], read[-1]["mean_calls"])
        ends = [row[f"{verdict}_low"], row[verdict], row[f"{verdict}_high"]]
        assert ends == sorted(ends) and min(r[verdict] for r in read) <= row[verdict] <= max(r[verdict] for r in read)
    assert any(row["sampler"] == SWEPT for row in summary["rows"])
    table, page = ((tmp_path / name).read_text() for name in ("table.txt", "report.html"))
    assert all(row["sampler"] in table and row["sampler"] in page for row in curve)
    assert "Swept constants" in table and "Swept constants" in page and not (tmp_path / "accuracy.png").exists()
    stamp = (tmp_path / "metrics.jsonl").read_text()
    assert evaluate.main([*argv, "--baselines", "tweedie", SWEPT, "--output-dir", str(tmp_path), "--resume"]) == 0
    assert (tmp_path / "metrics.jsonl").read_text() == stamp


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--baselines", SWEPT], ["`--baselines`", "the first is the base"]),
        (["--baselines", "tweedie", SWEPT, "--frontier", "--temperatures", "0.9", "1"], ["`--frontier`", "one value"]),
    ],
)
def test_where_nothing_is_swept(more: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--model", "countdown:V=4,L=16", *more]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("Error: ") and all(word in last for word in words), last
