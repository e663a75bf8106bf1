"""`lsd-eval --molecules`: from a model and files of SMILES to rows, floor and report; and what is refused."""

import json
import sys
from pathlib import Path

import pytest
import torch
from helpers.tiny_molecules import write_model

from lsd_sampler import MaskedDiffusionPipeline
from lsd_sampler.cli import evaluate
from lsd_sampler.evaluation import MoleculeMetrics, read_jsonl
from lsd_sampler.evaluation.tokens import load_tokenizer_file


REAL = [f"{'C' * n}{end}" for n in range(1, 9) for end in ("O", "N", "OC", "Br")]  # 32 of them, some with no token


@pytest.fixture
def packages() -> None:
    for library in ("rdkit", "fcd_torch"):
        pytest.importorskip(library, reason=f"{library} is not installed")


def arguments(tmp_path: Path, tokens: str, *more: str) -> list[str]:
    (tmp_path / "real.smi").write_text("\n".join(REAL))
    (tmp_path / "train.smi").write_text("CCCCCC hexane\nCCCCCO\n")
    model = write_model(tmp_path / "model", tokens)
    size = ["--num-samples", "16", "--nfe", "2", "--temperatures", "1", "--output-dir", str(tmp_path / "out")]
    return ["--model", str(model), "--headline-limit", "2", *size, *more]


def of_molecules(tmp_path: Path) -> list[str]:
    return ["--molecules", "--reference", str(tmp_path / "real.smi"), "--training-set", str(tmp_path / "train.smi")]


def test_rows_are_what_the_metrics_say_of_the_very_samples(packages: None, tmp_path: Path) -> None:
    assert evaluate.main(arguments(tmp_path, "CON", *of_molecules(tmp_path), "--num-texts", "3")) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    (row,), floor = summary["rows"], summary["floor"]
    pipe = MaskedDiffusionPipeline.from_pretrained(str(tmp_path / "model"))
    generator = torch.Generator().manual_seed(0)
    out = pipe(num_samples=16, num_inference_steps=2, generator=generator)
    order = torch.randperm(len(REAL), generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = [REAL[i] for i in order]
    tokenizer = load_tokenizer_file(tmp_path / "model")
    metrics = MoleculeMetrics(tokenizer, shuffled[:16], ["CCCCCC", "CCCCCO"])
    expected, real = metrics.compute(out.sequences), metrics.compute(torch.zeros(16, 1), shuffled[16:])
    assert row["valid"] == 1 and summary["verdict"] == "fcd" and floor["sampler"] == "real molecules"
    for key in ("fcd", "unique", "novel", "logp_distance", "weight_distance", "qed_distance"):
        assert row[key] == pytest.approx(expected[key], rel=1e-6)
        assert floor[key] == pytest.approx(real[key], rel=1e-6)
    assert floor["fcd"] < row["fcd"]
    assert "FCD" in (tmp_path / "out" / "table.txt").read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(text in page for text in [*out.texts[:3], *shuffled[16:19]])


def test_samples_that_are_no_molecules_get_a_row_too(packages: None, tmp_path: Path) -> None:
    """And two samplers without any can be compared."""
    more = ["--baselines", "tweedie", "tweedie:halton", *of_molecules(tmp_path)]
    assert evaluate.main(arguments(tmp_path, "()=", *more)) == 0
    rows = json.loads((tmp_path / "out" / "summary.json").read_text())["rows"]
    assert [row["valid"] for row in rows] == [0, 0] and rows[0]["fcd"] == rows[1]["fcd"] > 0
    assert {row["unique"] for row in rows} == {row["qed_distance"] for row in rows} == {None}


def test_canvases_are_compared_with_what_the_teacher_fills_in(packages: None, tmp_path: Path) -> None:
    (tmp_path / "canvases.jsonl").write_text('{"ids": [0, 0, 3, 3, 3, 3]}\n')
    more = ["--infill", str(tmp_path / "canvases.jsonl"), *of_molecules(tmp_path)]
    assert evaluate.main(arguments(tmp_path, "CON", *more)) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["floor"]["sampler"] == "teacher, one token a step"
    rows = read_jsonl(tmp_path / "out" / "metrics.jsonl")
    assert all(text.startswith("CC") for row in rows for text in row["texts"])
    assert all(0 <= row["fills_differ"] <= 1 for row in [*rows, summary["floor"]])


def refused(capsys: pytest.CaptureFixture[str], argv: list[str], *words: str) -> None:
    assert evaluate.main(argv) == 1
    said = capsys.readouterr().err
    assert all(word in said for word in words) and "Traceback" not in said, said


@pytest.mark.parametrize("flag", ["--judge x", "--features denoiser", "--mauve", "--frontier"])
def test_what_is_of_texts_is_refused(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = arguments(tmp_path, "CON", *of_molecules(tmp_path), *flag.split())
    refused(capsys, argv, f"`{flag.split()[0]}` does not go with `--molecules`")
    assert not (tmp_path / "out").exists()


def test_flags_that_need_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real = ["--reference", str(tmp_path / "real.smi")]
    refused(capsys, arguments(tmp_path, "CON", "--molecules"), "`--molecules`", "--reference test.smi")
    argv = arguments(tmp_path, "CON", *real, "--training-set", "x.smi")
    refused(capsys, argv, "`--training-set`", "`--molecules`")
    refused(capsys, [*of_molecules(tmp_path), "--model", "countdown:V=4,L=16"], "exact oracle")
    argv = arguments(tmp_path, "CON", "--molecules", "--tasks", "sudoku4")
    refused(capsys, argv, "`--molecules`", "does not go with `--tasks`")


def test_a_model_without_a_tokenizer_makes_no_molecules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = arguments(tmp_path, "CON", *of_molecules(tmp_path))
    (tmp_path / "model" / "tokenizer.json").unlink()
    refused(capsys, argv, "`--molecules`", "no tokenizer")


@pytest.mark.parametrize("missing", ["rdkit", "fcd_torch"])
def test_missing_packages_are_said_before_the_work(
    missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    refused(capsys, arguments(tmp_path, "CON", *of_molecules(tmp_path)), "pip install lsd_sampler[molecules]")
    assert (tmp_path / "out" / "metrics.jsonl").exists() is False


def test_too_few_real_molecules(packages: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = arguments(tmp_path, "CON", *of_molecules(tmp_path), "--num-samples", "17")
    assert evaluate.main(argv) == 0
    assert "Too few reference molecules for a floor" in capsys.readouterr().err
    (tmp_path / "real.smi").write_text("CC\nC1\n")
    refused(capsys, [*argv, "--overwrite"], "`reference`", "two valid molecules")
