"""Finished rows of `lsd-eval`: which of them `--resume` takes, and that nothing that stops a run loses them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.evaluation_commands import ORACLE, argv, fails

from lsd_sampler.cli import evaluate
from lsd_sampler.evaluation import JudgeNLL, read_jsonl, write_jsonl


def test_resume_makes_no_sample_again_but_knows_another_judge(
    text_model: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ["--reference", str(text_model["text"]), "--resume"]
    judge = shutil.copytree(text_model["judge"], tmp_path / "other")
    assert evaluate.main(argv(text_model, tmp_path / "out", *more)) == 0
    before = (tmp_path / "out" / "metrics.jsonl").read_bytes()
    page = (tmp_path / "out" / "report.html").read_bytes()
    assert evaluate.main(argv(text_model, tmp_path / "out", *more)) == 0
    assert (tmp_path / "out" / "metrics.jsonl").read_bytes() == before
    assert (tmp_path / "out" / "report.html").read_bytes() == page
    assert evaluate.main(argv(text_model | {"judge": judge}, tmp_path / "out", *more)) == 0
    assert len(read_jsonl(tmp_path / "out" / "metrics.jsonl")) == 2 * len(before.splitlines())


REFERENCE, OTHER_TEXT, JUDGE = "--reference TEXT", "--reference OTHER", "--judge JUDGE"


@pytest.mark.parametrize(
    ("first", "second", "differing"),
    [
        (REFERENCE, "", "reference"),
        ("", REFERENCE, "reference"),
        (REFERENCE, OTHER_TEXT, "yardstick"),
        (f"{REFERENCE} {JUDGE}", REFERENCE, "judge"),
        (f"{REFERENCE} {JUDGE} --features judge", f"{REFERENCE} {JUDGE} --features denoiser", "features"),
        (f"{REFERENCE} {JUDGE}", f"{REFERENCE} {JUDGE} --judge-dtype bfloat16", "judge_dtype"),
        (f"{REFERENCE} {JUDGE}", f"{REFERENCE} {JUDGE} --judge-stride 2", "judge_stride"),
        (REFERENCE, f"{REFERENCE} --dtype bfloat16", "dtype"),
        (REFERENCE, f"{REFERENCE} --revision other", "revision"),
        (REFERENCE, f"{REFERENCE} --length 6", "length"),
        (f"{REFERENCE} --length 6", REFERENCE, "length"),
        ("--model countdown:V=4,L=16 --length 8", "--model countdown:V=4,L=16", "length"),
        ("--model markov:CHAIN", "--model markov:CHAIN --oracle countdown:V=4,L=16", "oracle"),
    ],
)
def test_resume_measures_again_what_was_made_otherwise(
    first: str, second: str, differing: str, text_model: dict[str, Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A resumed run says what a run afresh says, whichever option came, went or changed; and twice, it is reused."""
    words = text_model["text"].read_text()
    (tmp_path / "other.txt").write_text(words[::-1])
    (tmp_path / "chain.json").write_text(json.dumps({"transition": [[0.25] * 4] * 4, "length": 16}))
    places = {"TEXT": text_model["text"], "OTHER": tmp_path / "other.txt", "JUDGE": text_model["judge"]}

    def rows(options: str, folder: str, *more: str) -> list[dict[str, Any]]:
        given = [str(places.get(word, word)).replace("CHAIN", f"{tmp_path}/chain.json") for word in options.split()]
        model = [] if "--model" in given else ["--model", str(text_model["model"])]
        fixed = ["--nfe", "2", "--num-samples", "24", "--temperatures", "1", "--output-dir", str(tmp_path / folder)]
        assert evaluate.main([*model, *fixed, *given, *more]) == 0
        found = json.loads((tmp_path / folder / "summary.json").read_text())["rows"]
        return [{name: value for name, value in row.items() if name != "seconds"} for row in found]

    before = rows(first, "out")
    capsys.readouterr()
    resumed = rows(second, "out", "--resume")
    assert f"`{differing}`" in capsys.readouterr().err
    assert resumed == rows(second, "afresh") != before
    assert rows(second, "out", "--resume") == resumed
    assert len(read_jsonl(tmp_path / "out" / "metrics.jsonl")) == 2


def test_resume_knows_a_changed_text_by_its_content(text_model: dict[str, Path], tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    for content, num_rows in (("abcdef " * 100, 1), ("fedcba " * 100, 2), ("fedcba " * 100, 2)):
        text.write_text(content)
        fixed = ["--nfe", "2", "--num-samples", "8", "--temperatures", "1", "--output-dir", str(tmp_path / "out")]
        arguments = ["--model", str(text_model["model"]), "--reference", str(text), "--resume", *fixed]
        assert evaluate.main(arguments) == 0
        assert len(read_jsonl(tmp_path / "out" / "metrics.jsonl")) == num_rows


def test_rows_that_do_not_say_how_they_were_made_stay_but_are_not_reused(tmp_path: Path) -> None:
    arguments = [*ORACLE, "--output-dir", str(tmp_path), "--resume"]
    assert evaluate.main(arguments) == 0
    path = tmp_path / "metrics.jsonl"
    new = ("revision", "dtype", "oracle", "judge", "reference", "features", "yardstick", "call_options")
    write_jsonl(path, [{k: v for k, v in row.items() if k not in new} for row in read_jsonl(path)])
    old = read_jsonl(path)
    assert evaluate.main(arguments) == 0
    assert read_jsonl(path)[:2] == old and len(read_jsonl(path)) == 4


def test_finished_rows_are_not_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second run into their folder must say what it wants with them; what a kill cut short is no row."""
    path, arguments = tmp_path / "metrics.jsonl", [*ORACLE, "--output-dir", str(tmp_path)]
    path.write_text('{"sampler": "twee')
    assert evaluate.main(arguments) == 0
    before = read_jsonl(path)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "load_pipeline", lambda *_: pytest.fail("the work began"))
        words = ("holds 2 finished rows: `--resume` to go on, `--overwrite` to start over", str(tmp_path))
        fails(capsys, [*arguments, "--num-samples", "16"], *words)
        with pytest.raises(SystemExit):
            evaluate.main([*arguments, "--resume", "--overwrite"])
    assert read_jsonl(path) == before
    assert evaluate.main([*arguments, "--num-samples", "16", "--overwrite"]) == 0
    assert [row["num_samples"] for row in read_jsonl(path)] == [16, 16]


def test_a_vanished_judge_leaves_finished_rows(
    text_model: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out in the middle; then the folder is gone; then it is back."""
    judge, score = shutil.copytree(text_model["judge"], tmp_path / "judge"), JudgeNLL._score_batch
    arguments = argv(
        text_model | {"judge": judge}, tmp_path / "out", "--reference", str(text_model["text"]), "--resume"
    )
    calls = [0]

    def runs_out(self: JudgeNLL, *args: Any) -> torch.Tensor:
        calls[0] += 1
        if calls[0] > 2:  # real text, and the first row
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return score(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(JudgeNLL, "_score_batch", runs_out)
        fails(capsys, arguments, "--judge-batch-size 12", "7 finished rows", "--resume")
    rows = tmp_path / "out" / "metrics.jsonl"
    kept = rows.read_bytes()
    judge.rename(tmp_path / "elsewhere")
    fails(capsys, arguments, "judge", "7 finished rows are kept", "--resume")
    assert rows.read_bytes() == kept
    (tmp_path / "elsewhere").rename(judge)
    assert evaluate.main(arguments) == 0
    assert rows.read_bytes().startswith(kept) and len(read_jsonl(rows)) == 6 + 2


def test_a_judge_deleted_in_the_middle_is_not_missed(
    text_model: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, load = shutil.copytree(text_model["judge"], tmp_path / "judge"), JudgeNLL.from_pretrained

    def load_and_delete(*args: Any, **options: Any) -> JudgeNLL:
        loaded = load(*args, **options)
        shutil.rmtree(judge)
        return loaded

    monkeypatch.setattr(JudgeNLL, "from_pretrained", load_and_delete)
    paths = text_model | {"judge": judge}
    assert evaluate.main(argv(paths, tmp_path / "out", "--reference", str(text_model["text"]))) == 0


def test_a_full_disk_leaves_finished_rows_and_resume_goes_on(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the write fails in the middle of a row."""
    arguments = [*ORACLE, "--baselines", "tweedie", "euler", "--output-dir", str(tmp_path), "--resume"]
    script = "import resource, sys; from lsd_sampler.cli.evaluate import main;"
    script += "resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000)); sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    kept = read_jsonl(tmp_path / "metrics.jsonl")
    assert 0 < len(kept) < 4
    assert f"{len(kept)} finished rows are kept" in last and "metrics.jsonl" in last and "--resume" in last
    assert evaluate.main(arguments) == 0
    assert read_jsonl(tmp_path / "metrics.jsonl")[: len(kept)] == kept


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
def test_an_unwritable_folder_is_known_before_the_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In /proc not even root may make a folder."""
    monkeypatch.setattr(evaluate, "make_metrics", lambda *_: pytest.fail("the work began"))
    fails(capsys, [*ORACLE, "--output-dir", "/proc/lsd-eval"], "/proc/lsd-eval")
