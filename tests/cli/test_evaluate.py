"""`lsd-eval` end to end, on a tiny oracle and on a tiny text model with a tiny judge."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from helpers.evaluation_commands import LETTERS, ORACLE, argv, fails
from helpers.tiny_maskgit import random_model
from PIL import Image

from lsd_sampler.cli import evaluate
from lsd_sampler.cli.evaluation_parts import baseline, real_sequences
from lsd_sampler.cli.texts import read_sequences, read_texts
from lsd_sampler.denoisers.oracle_names import make_oracle
from lsd_sampler.evaluation import read_jsonl, write_jsonl
from lsd_sampler.evaluation.comparison import SWEEP_SEED
from lsd_sampler.pipeline_masked_diffusion import MaskedDiffusionPipeline
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
from lsd_sampler.scheduling_lsd import LSDScheduler


def test_an_oracle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        *ORACLE,
        "--baselines",
        "tweedie",
        "tweedie:halton",
        "remdm_cap@eta=0.02",
        "--output-dir",
        str(tmp_path),
    ]
    assert evaluate.main(arguments) == 0
    out = capsys.readouterr().out
    assert out.rstrip().splitlines()[-1].startswith("At 8 calls ")
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"metrics.jsonl", "quality_vs_nfe.png", "report.html", "summary.json", "table.txt"}
    protocol = json.loads((tmp_path / "summary.json").read_text())["protocol"]
    assert protocol["Temperatures"] == "1" and protocol["Real data"].startswith("exact samples")
    assert protocol["Samples"].startswith("32 of 16 tokens")


def test_the_headline_is_looked_for_as_far_as_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Up to one token a call, or to `--headline-limit`; a run that was limited goes on, and makes no row again."""
    path = tmp_path / "metrics.jsonl"
    argv = ["--model", "countdown:V=4,L=16", "--num-samples", "64", "--nfe", "4", "--resume"]
    argv += ["--baselines", "tweedie", "tweedie:halton", "--output-dir", str(tmp_path)]
    measured, headlines = [], []
    for limit in (["--headline-limit", "4"], ["--headline-limit", "6"], [], []):
        assert evaluate.main([*argv, *limit]) == 0
        measured.append([row["nfe"] for row in read_jsonl(path) if row["sampler"] == "tweedie"])
        summary = json.loads((tmp_path / "summary.json").read_text())
        headlines.append(summary["headline"])
        assert summary["headline"] is None or summary["headline"] in capsys.readouterr().out
        assert "1.0×" not in (tmp_path / "report.html").read_text()
    assert measured == [[4], [4, 6], [4, 6, 8, 16], [4, 6, 8, 16]]
    assert headlines[0] is None and headlines[1] == "> 1.5× fewer calls"
    assert re.fullmatch(r"\d\.\d× fewer calls \(\d\.\d (to \d\.\d|or more)\)", headlines[2])
    assert headlines[3] == headlines[2]


def test_a_text_model_with_judge_reference_frontier_and_features(
    text_model: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--reference", str(text_model["text"]), "--frontier", "--features", "judge", "--judge-dtype", "bfloat16"]
    more += ["--judge-batch-size", "5", "--judge-stride", "2", "--baselines", "tweedie", "tweedie:halton", "--json"]
    assert evaluate.main(argv(text_model, tmp_path, *more)) == 0
    found = json.loads(capsys.readouterr().out)  # nothing else is on stdout
    assert found == json.loads((tmp_path / "summary.json").read_text())
    assert [(row["sampler"], row["nfe"]) for row in found["rows"]] == [
        (name, nfe) for name in ("tweedie", "tweedie:halton") for nfe in (2, 4)
    ]
    for row in [*found["rows"], found["floor"]]:
        assert row["perplexity"] > 1 and row["unigram_entropy"] > 0 and row["energy_distance"] is not None
    assert len(found["frontier"]) == 4 and found["floor"]["sampler"] == "real text"
    assert (tmp_path / "frontier.png").exists()
    page = (tmp_path / "report.html").read_text()
    assert page.count("<blockquote>") == 2 * 3 and "The frontier" in page
    assert len(read_jsonl(tmp_path / "metrics.jsonl")) == 2 * 2 * 3 + 2 * 2


def test_temperatures_are_chosen_on_fewer_samples(
    text_model: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--reference", str(text_model["text"]), "--temperatures", "0.8", "1.2", "--temperature-samples", "6"]
    swept = ["--baselines", "tweedie", "entropy_bounded@gamma=0.1/1"]
    assert evaluate.main(argv(text_model, tmp_path, *more, *swept)) == 0
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    judged = {row["num_samples"] for row in rows if row["seed"] < SWEEP_SEED}
    assert {row["num_samples"] for row in rows if row["seed"] >= SWEEP_SEED} == {6} and 6 not in judged
    assert {row["temperature"] for row in rows if row["seed"] >= SWEEP_SEED} == {0.8, 1.2}
    assert "chosen on 6 other samples" in capsys.readouterr().out + (tmp_path / "report.html").read_text()
    before = (tmp_path / "metrics.jsonl").read_bytes()
    assert evaluate.main(argv(text_model, tmp_path, *more, *swept, "--resume")) == 0
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("other", [["--frontier"], ["--infill", "FILE"], ["--tasks", "sudoku"]])
def test_fewer_samples_for_temperatures_cannot_go_with(
    other: list[str], text_model: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--output-dir", str(tmp_path / "out"), "--temperature-samples", "4"]
    more = ["--nfe", "2", "--model", str(text_model["model"])] if other[0] == "--tasks" else ORACLE
    fails(capsys, [*more, *out, *other], "`--temperature-samples`", f"`{other[0]}`")
    assert not (tmp_path / "out").exists()


def test_canvases_with_clues_have_one_sample_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", "sudoku4:clues=4", "--nfe", "2", "--num-samples", "8", "--temperature-samples", "4"]
    fails(capsys, [*arguments, "--output-dir", str(tmp_path)], "`--temperature-samples`", "canvas")


def test_without_a_reference_the_teacher_is_reference_and_floor(
    text_model: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = argv(text_model, tmp_path, "--temperature-nfe", "2", "--features", "denoiser")
    assert evaluate.main(arguments) == 0
    captured = capsys.readouterr()
    assert "teacher, one token a step, takes its place" in captured.err
    assert "teacher, one token a step" in captured.out
    assert len(read_jsonl(tmp_path / "metrics.jsonl")) == 3 + 2


def test_tokens_of_images_are_compared_as_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random_model().save_pretrained(tmp_path / "model")
    options = ["--nfe", "2", "--num-samples", "6", "--temperatures", "1", "--output-dir", str(tmp_path / "out")]
    assert evaluate.main(["--model", str(tmp_path / "model"), *options]) == 0
    captured = capsys.readouterr()
    assert "FID needs images: decode samples with the model's VQ decoder" in captured.err
    assert "JS token pairs" in captured.out and "unigram entropy" in captured.out
    assert "<blockquote>" not in (tmp_path / "out" / "report.html").read_text()
    again = [*options, "--overwrite", "--judge", "x"]
    fails(capsys, ["--model", str(tmp_path / "model"), *again], "--judge", "no tokenizer")


def test_folders_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, num in (("a", 2), ("b", 3)):
        (tmp_path / name).mkdir()
        for i in range(num):
            Image.fromarray(np.full((4, 4, 3), i, dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    fails(capsys, ["--images", a], "--image-reference")
    fails(capsys, ["--images", a, b, "--image-reference", a], "equal numbers")
    with pytest.raises(SystemExit):
        evaluate.main(["--images", a, "--model", "countdown"])


def test_without_inception_weights_it_says_where_to_put_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network. Rows of another evaluation in the default folder are none of its business."""

    def no_network(**_: Any) -> None:
        raise URLError("Name or service not known")

    fid: Any = ModuleType("torchmetrics.image.fid")
    fid.FrechetInceptionDistance = no_network
    for name in ("torchmetrics", "torchmetrics.image"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, fid.__name__, fid)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    write_jsonl("lsd-eval/metrics.jsonl", [{"x": 1}])
    for i in range(2):
        Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    path = f"{tmp_path}/home/hub/checkpoints/weights-inception-2015-12-05-6726825d.pth"
    last = fails(capsys, ["--images", ".", "--image-reference", "."], "cannot be downloaded", path)
    assert "finished rows" not in last


# ---- what is asked for ----


def test_baselines_with_options() -> None:
    config: dict[str, Any] = {"mask_token_id": 4}
    made = baseline("remdm_loop@eta=0.01,t_on=0.6", config)
    assert made.config.solver == "remdm_loop" and made.config.solver_options == {"eta": 0.01, "t_on": 0.6}
    assert baseline("dndm@weights=beta", config).config.solver_options["weights"] == "beta"
    made = baseline("tweedie:halton:cosine", config)
    assert (made.config.order, made.config.schedule) == ("halton", "cosine")
    for text, words in (
        ("tweedie@eta=1", "'eta'"), ("remdm_cap@", "SOLVER"), ("remdm_cap@eta", "OPTION=VALUE"),
        ("remdm_cap@eta=x", "eta"), ("a:b:c:d", "SOLVER"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            baseline(text, config)


def test_reference_of_a_folder_is_all_its_texts(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("two")
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "notes.md").write_text("not read")
    assert read_texts(tmp_path, "--reference") == ["one", "two"]
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match="c.txt"):
        read_texts(tmp_path, "--reference")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no file"):
        read_texts(tmp_path / "empty", "--reference")


@pytest.mark.parametrize("flag", ["--reference", "--data"])
def test_texts_shorter_than_a_window_are_left_out(
    flag: str, text_model: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a folder; and if all are, it says so and names the folder."""
    pipeline = MaskedDiffusionPipeline.from_pretrained(str(text_model["model"]))

    def read(folder: Path) -> list[list[int]]:
        args = evaluate.build_parser().parse_args(["--model", "x", "--reference", str(folder), "--length", "8"])
        found = real_sequences(args, pipeline) if flag == "--reference" else read_sequences(folder, pipeline, 8)
        return sorted(found.tolist())

    for name, text in (("a", "abcabca"), ("b", "aaaaaaaabbbbbbbb"), ("c", ""), ("d", "ccccccccdd")):
        (tmp_path / f"{name}.txt").write_text(text)
    assert read(tmp_path) == [[letter] * 8 for letter in range(3)]
    err = capsys.readouterr().err
    assert f"`{flag}` {str(tmp_path)!r}: 2 of 4 texts are shorter than 8 tokens and left out." in err
    for name in ("b", "d"):
        (tmp_path / f"{name}.txt").unlink()
    with pytest.raises(ValueError, match=f"`{flag}` .*{tmp_path.name}.* holds no text of 8 tokens"):
        read(tmp_path)


def test_known_mistakes(text_model: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    fails(capsys, [*ORACLE, "--output-dir", out, "--frontier", "--temperatures", "1"], "--frontier", "two")
    fails(capsys, argv(text_model, tmp_path, "--mauve"), "--mauve", "--features")
    fails(capsys, argv(text_model, tmp_path, "--reference", str(tmp_path / "none.txt")), "none.txt")
    base = ["--model", str(text_model["model"]), "--nfe", "2", "--num-samples", "8", "--output-dir", out]
    fails(capsys, [*base, "--frontier", "--reference", str(text_model["text"])], "--frontier", "--judge")
    fails(capsys, [*base, "--features", "judge"], "--features judge", "--judge")


def test_what_can_only_end_badly_is_said_before_the_work(
    text_model: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    base = ["--model", str(text_model["model"]), "--num-samples", "60", "--output-dir", str(out), "--nfe", "2", "4"]
    text = ["--reference", str(text_model["text"])]  # 100 windows
    fails(capsys, [*base, *text, "--features", "denoiser"], "--features", "--num-samples", "60", "50", "text.txt")
    assert not (out / "metrics.jsonl").exists()
    monkeypatch.setattr(evaluate, "make_metrics", lambda *_: pytest.fail("the work began"))
    frontier = ["--judge", str(text_model["judge"]), "--frontier", "--temperature-nfe", "3"]
    fails(capsys, [*base, *frontier], "`--temperature-nfe` 3 must be among `--nfe` 2 4 with `--frontier`")
    fails(capsys, [*ORACLE, "--frontier", "--temperature-nfe", "6", "--output-dir", str(out)], "`--nfe` 4 8")
    draws = ["--baselines", "tweedie", "euler@count=bernoulli,draws=float32_eps1e-6"]
    for more in ([], ["--temperatures", "0.9"]):
        fails(capsys, [*base, *draws, *more], "euler@count", "float32_eps1e-6", "--temperatures 1")
    learned = LSDScheduler(mask_token_id=len(LETTERS))
    learned.set_learned_sampler(LearnedSampler({4: LearnedSteps.plain(torch.linspace(1, 0.001, 5))}))
    learned.save_pretrained(str(tmp_path / "learned"))
    alone = ["--baselines", "--sampler", str(tmp_path / "learned"), "--temperature-nfe", "2"]
    fails(capsys, [*base, *alone], "`--temperature-nfe` 2", "learned has no numbers")


def test_a_headline_at_calls_that_are_not_made_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "load_pipeline", lambda *_: pytest.fail("something is loaded"))
    more = ["--headline-nfe", "16", "--output-dir", str(tmp_path)]
    fails(capsys, [*ORACLE, *more], "`--headline-nfe` 16 must be among `--nfe` 4 8.")


@pytest.mark.parametrize("model", [None, "owner/model"])
def test_a_sampler_of_another_model_is_known_before_the_work(
    model: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "make_metrics", lambda *_: pytest.fail("the work began"))
    LSDScheduler(mask_token_id=2048, base_model=model).save_pretrained(str(tmp_path / "books"))
    arguments = [*ORACLE, "--sampler", str(tmp_path / "books"), "--output-dir", str(tmp_path / "out")]
    words = f"distilled for {model or 'another model'} (mask 2048)"
    fails(capsys, arguments, "`--sampler`", "books", words, "`--model` countdown:V=4,L=16 has mask 4.")


@pytest.mark.parametrize("unused", ["--judge x", "--reference x", "--features denoiser", "--mauve"])
def test_a_chain_has_no_use_for_what_is_of_texts(
    unused: str, text_model: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    make_oracle("countdown:V=4,L=16").save_pretrained(tmp_path / "chain")
    flag, *_ = more = [*unused.split(), "--output-dir", str(tmp_path / "out")]
    fails(capsys, ["--model", str(tmp_path / "chain"), *more], f"`{flag}`", "exact oracle")
    monkeypatch.setattr(evaluate, "load_pipeline", lambda *_: pytest.fail("something is loaded"))
    for model in (ORACLE, ["--model", str(text_model["model"]), "--oracle", "countdown:V=7,L=8"]):
        fails(capsys, [*model, *more], f"`{flag}`", "exact oracle")
