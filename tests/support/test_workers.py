"""Several processes learn what one does: `accelerate launch`, gloo, CPU."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from denoisers.test_maskgit import random_model
from helpers.ddit_checkpoints import RADD
from helpers.distributed_run import learned_numbers
from helpers.tiny_answerers import tiny_answerer, tiny_denoiser
from safetensors.torch import load_file

from lsd_sampler import DistillConfig
from lsd_sampler.cli import evaluate, sample, train
from lsd_sampler.denoisers import RADDDenoiser
from lsd_sampler.support.workers import Workers
from lsd_sampler.training.methods.auto import candidates
from lsd_sampler.training.teacher_plan import TeacherPlan


TESTS = Path(__file__).parents[1]
MODEL = "countdown:V=6,L=16"


def launch(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Two processes of a command."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # `--multi_gpu` is accelerate's word for several processes on one machine, with GPUs or without
    options = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--main_process_port", str(port)]
    options += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, *argv]
    paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=240)


def save_answerer(folder: Path) -> list[str]:
    """A model that answers, and the flags of 24 prompts to it, in batches of 3."""
    tiny_denoiser("llada").save_pretrained(folder / "model")
    tiny_answerer().tokenizer.save_pretrained(folder / "model")
    words = "abcdefghijkl"
    prompts = [" ".join(words[: 1 + i % 5]) + f" {words[i % 12]}" for i in range(24)]
    (folder / "prompts.txt").write_text("\n".join(prompts) + "\n")
    argv = ["--model", "model", "--device", "cpu", "--prompts", "prompts.txt", "--max-new-tokens", "8"]
    return [*argv, "--block-length", "4", "--cache", "dual", "--nfe", "2", "--batch-size", "3", "--output"]


def test_two_processes_answer_each_prompt_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, as one process does. They go on where a run was stopped."""
    argv = save_answerer(tmp_path)
    done = launch("-m", "lsd_sampler.cli.sample", *argv, "two.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(tmp_path)
    assert sample.main([*argv, "one.jsonl"]) == 0
    one, two = (Path(name).read_text() for name in ("one.jsonl", "two.jsonl"))
    assert one == two
    rows = [json.loads(line) for line in one.splitlines()]
    assert [row["prompt"] for row in rows] == Path("prompts.txt").read_text().splitlines()
    assert done.stdout == "\n\n".join(row["text"] for row in rows) + "\n"


def test_a_killed_worker_loses_nothing_that_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = save_answerer(tmp_path)
    (tmp_path / "run.py").write_text("import sys\nfrom helpers.dying_worker import main\nmain(sys.argv[1:])\n")
    done = launch("run.py", *argv, "out.jsonl", cwd=tmp_path)
    assert done.returncode != 0
    monkeypatch.chdir(tmp_path)
    kept = Path("out.jsonl.part").read_text().splitlines()
    assert len(kept) == 1 + 12 and not Path("out.jsonl").exists()
    drawn, call = [], sample.call

    def watched(args: Any, pipeline: Any, numbers: Any, **kwargs: Any) -> Any:
        drawn.extend(numbers)
        return call(args, pipeline, numbers, **kwargs)

    monkeypatch.setattr(sample, "call", watched)
    assert sample.main([*argv, "out.jsonl", "--resume"]) == 0
    assert sorted(drawn) == [i for i in range(24) if i not in {json.loads(line)[0] for line in kept[1:]}]
    monkeypatch.setattr(sample, "call", call)
    assert sample.main([*argv, "one.jsonl"]) == 0
    assert Path("one.jsonl").read_text() == Path("out.jsonl").read_text()


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    """For each method, to 1e-6, with the same sequences in all; and both have the same numbers, bit for bit."""
    done = launch("-m", "helpers.distributed_run", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = (load_file(tmp_path / f"process-{rank}-of-2.safetensors") for rank in (0, 1))
    alone = learned_numbers()
    assert set(first) == set(second) == set(alone)
    for key, tensor in alone.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], tensor, rtol=1e-6, atol=1e-6, msg=key)
    learned = [k for k in alone if not bool((alone[k] == 1).all())]
    for kind in ("score_coefficients", "timesteps", "measured"):
        assert any(kind in key for key in learned)


def test_lsd_train_on_two_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One folder, one output; it goes on from a run that was stopped; shares must be equal."""
    argv = ["--model", MODEL, "--device", "cpu", "--method", "lsd", "--nfe", "2", "4", "--cache-dir"]
    argv.append(str(tmp_path / "cache"))
    done = launch("-m", "lsd_sampler.cli.train", *argv, "--num-sequences", "4", "--output-dir", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Output folder: out") == 1 and done.stdout.count("Saved to out.") == 1
    assert not (tmp_path / "out" / "progress").exists()
    alone = tmp_path / "alone"
    assert train.main([*argv, "--num-sequences", "4", "--output-dir", str(alone)]) == 0
    two, one = (load_file(folder / "scheduler_model.safetensors") for folder in (tmp_path / "out", alone))
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-6, atol=1e-6)
    events = [json.loads(line)["event"] for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert events == [json.loads(line)["event"] for line in (alone / "metrics.jsonl").read_text().splitlines()]


def test_lsd_train_on_two_processes_with_partly_given_canvases(tmp_path: Path) -> None:
    """Both have the same canvases, which they make together, and learn what one process does."""
    torch.manual_seed(0)
    RADDDenoiser(RADD | {"tokens": 7}).save_pretrained(tmp_path / "model")
    argv = ["--device", "cpu", "--method", "path_kl", "--nfe", "2", "4", "--num-sequences", "4", "--batch-size", "2"]
    argv += ["--held-out-sequences", "2", "--cache-dir", "/dev/null", "--bootstrap-steps", "3"]
    argv += ["--model", str(tmp_path / "model"), "--given", "0.1", "0.5"]
    done = launch("-m", "lsd_sampler.cli.train", *argv, "--output-dir", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert train.main([*argv, "--output-dir", str(tmp_path / "alone")]) == 0
    two, one = (load_file(tmp_path / name / "scheduler_model.safetensors") for name in ("out", "alone"))
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-6, atol=1e-6)


def test_lsd_eval_on_two_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows, verdict and files are those of one process, each once; and it goes on from rows of one process.

    Reference and floor are samples of the teacher, which are shared too.
    """
    random_model().save_pretrained(tmp_path / "model")
    argv = ["--model", str(tmp_path / "model"), "--device", "cpu", "--baselines", "tweedie", "tweedie:halton"]
    argv += ["--nfe", "2", "--num-samples", "7", "--temperatures", "0.9", "1", "--batch-size", "3", "--output-dir"]
    alone = tmp_path / "alone"
    assert evaluate.main([*argv, str(alone)]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "out").mkdir()
    kept = (alone / "metrics.jsonl").read_text().splitlines(keepends=True)[:3]
    (tmp_path / "out" / "metrics.jsonl").write_text("".join(kept))
    done = launch("-m", "lsd_sampler.cli.evaluate", *argv, "out", "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed.replace(str(alone), "out")
    assert {path.name for path in alone.iterdir()} == {path.name for path in (tmp_path / "out").iterdir()}
    for name in ("table.txt", "summary.json", "metrics.jsonl"):
        one, two = (without_seconds((folder / name).read_text()) for folder in (alone, tmp_path / "out"))
        assert one == two, name


def without_seconds(text: str) -> str:
    return re.sub(r'"seconds": [\d.e-]+', "", text)


def test_lsd_sample_on_two_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same samples in the same order, however many are drawn at once."""
    argv = ["--model", MODEL, "--device", "cpu", "--nfe", "3", "--num-samples", "7", "--output"]
    assert sample.main([*argv, str(tmp_path / "alone.jsonl")]) == 0
    printed = capsys.readouterr().out
    done = launch("-m", "lsd_sampler.cli.sample", *argv, "two.jsonl", "--batch-size", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "alone.jsonl").read_bytes()


def test_shares_are_equal_and_whole() -> None:
    for size in (1, 2, 3):
        shares = [Workers(rank, size).share(12) for rank in range(size)]
        assert [i for share in shares for i in share] == list(range(12))
        assert {len(share) for share in shares} == {12 // size}
    with pytest.raises(ValueError, match="`num_sequences` 7 must be a multiple of the 2 processes, such as 8"):
        Workers(0, 2).share(7)


@pytest.mark.parametrize("size", [1, 3, 7, 8])
def test_numbers_that_nobody_asked_for_can_be_shared(size: int) -> None:
    """By any number of processes, whatever the source; a number that was asked for stays as it is."""
    for num_steps in (128, 1024):  # of a teacher that is affordable, and of one that is not
        plan = TeacherPlan(num_steps, 1, num_steps, 4)
        for paths in (None, "teacher", "data", "bootstrap"):
            recipe = DistillConfig(paths=paths).resolve(plan, paths == "data", Workers(0, size))
            recipes, _ = candidates(recipe, Workers(0, size))
            assert len(recipes) >= 2
            for each in (recipe, *recipes.values()):
                assert len(Workers(0, size).share(each.num_sequences)) > 0
    plan = TeacherPlan(128, 1, 128, 4)
    assert DistillConfig(num_sequences=10).resolve(plan, workers=Workers(0, 4)).num_sequences == 10
