"""What can stop a command: lack of memory, a full disk, a folder that cannot be written to. It ends in one sentence,
what was done is kept, and `--resume` goes on to the same bytes.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.child_processes import Outcome, run_child
from helpers.folder_contents import contents
from helpers.memory_errors import ERRORS
from helpers.small_distillations import pipeline_of

from lsd_sampler import DistillConfig, distill
from lsd_sampler.cli import evaluate, sample, train
from lsd_sampler.denoisers import MarkovDenoiser, countdown
from lsd_sampler.support.out_of_memory import BatchTooLarge


pytestmark = pytest.mark.usefixtures("no_plots")

ORACLE = ["--model", "countdown:V=4,L=16", "--device", "cpu"]
TRAIN = [*ORACLE, "--nfe", "2", "4", "--num-sequences", "8", "--method", "path_kl"]
COMMANDS = {"lsd-train": train, "lsd-sample": sample, "lsd-eval": evaluate}


def fails(capsys: pytest.CaptureFixture[str], command: str, argv: list[str], *words: str) -> str:
    """Exit code 1, and one sentence at the end of stderr that has these words."""
    assert COMMANDS[command].main(argv) == 1
    err = capsys.readouterr().err
    last = err.strip().splitlines()[-1]
    assert last.startswith("Error: ") and "Traceback" not in err
    assert all(word in last for word in words), last
    return last


def is_one_sentence(outcome: Outcome, *words: str) -> bool:
    """Whether a child ended in one."""
    ends = outcome.code == 1 and "Traceback" not in outcome.output and outcome.last.startswith("Error: ")
    return ends and all(word in outcome.last for word in words)


# ---- lack of memory ----


def raises_from(monkeypatch: pytest.MonkeyPatch, rows: int, error: BaseException | None = None) -> list[int]:
    """The network has memory for less than so many rows; the sizes of the batches that it is given."""
    seen, forward = [], MarkovDenoiser.forward

    def limited(self: MarkovDenoiser, tokens: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(len(tokens))
        if len(tokens) >= rows:
            raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return forward(self, tokens, *args, **kwargs)

    monkeypatch.setattr(MarkovDenoiser, "forward", limited)
    return seen


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_to_try(
    command: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raises_from(monkeypatch, 3, ERRORS[kind]())
    argv = {
        "lsd-train": [*TRAIN, "--output-dir", str(tmp_path)],
        "lsd-sample": [*ORACLE, "--num-samples", "8", "--nfe", "4"],
        "lsd-eval": [*ORACLE, "--num-samples", "8", "--nfe", "4", "--output-dir", str(tmp_path)],
    }[command]
    fails(capsys, command, argv, "out of memory with `--batch-size 8`: try `--batch-size 4`.")


@pytest.mark.parametrize(
    "options",
    [
        ["--method", "path_kl"],
        ["--method", "path_kl", "--paths", "bootstrap", "--batch-size", "6"],
        ["--method", "lsd"],
        ["--method", "lsd", "--batch-size", "2"],
        ["--method", "lsd", "--optimizer", "adam", "--epochs", "1", "--adam-batch-size", "8"],
        ["--method", "lsd", "--teacher-solver", "predictor_corrector", "--batch-size", "2"],
        ["--method", "lsd+"],
        ["--method", "lsd+", "--variant", "literal"],
        ["--method", "jys"],
    ],
)
def test_following_the_advice_ends_in_a_sampler(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the method: what is advised, done, leads to batches that fit, and each advice halves a number."""
    raises_from(monkeypatch, 4)
    argv = [*TRAIN, *options, "--teacher-steps", "16", "--output-dir", str(tmp_path), "--overwrite"]
    for _ in range(8):
        if train.main(argv) == 0:
            return
        last = capsys.readouterr().err.strip().splitlines()[-1]
        found = re.fullmatch(r"Error: out of memory with `(--[a-z-]+) (\d+)`: try `\1 (\d+)`\.", last)
        assert found and int(found[3]) == int(found[2]) // 2, last
        argv += [found[1], found[3]]
    pytest.fail(f"no advice helped: {argv}")


def test_one_sequence_that_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raises_from(monkeypatch, 1)
    for command in COMMANDS:
        argv = [*ORACLE, "--batch-size", "1", "--nfe", "4"]
        argv += [] if command == "lsd-sample" else ["--output-dir", str(tmp_path)]
        argv += ["--method", "path_kl"] if command == "lsd-train" else []
        fails(capsys, command, argv, "the model does not fit", "--dtype bfloat16", "--device")
        last = fails(capsys, command, [*argv, "--dtype", "bfloat16"], "the model does not fit", "--device")
        assert "bfloat16" not in last


def test_a_model_that_cannot_be_loaded(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any) -> None:
        raise ERRORS["CPU"]()

    monkeypatch.setattr(sample, "load_pipeline", load)
    fails(capsys, "lsd-sample", [*ORACLE, "--num-samples", "8"], "the model does not fit", "--dtype bfloat16")


def test_distill_says_how_large_the_batch_was(monkeypatch: pytest.MonkeyPatch) -> None:
    raises_from(monkeypatch, 3)
    with pytest.raises(BatchTooLarge, match="6 sequences") as error:
        distill(pipeline_of(countdown(4, 16)), DistillConfig(method="path_kl", nfe=(2,), num_sequences=6))
    assert error.value.num_rows == 6 and isinstance(error.value.__cause__, torch.OutOfMemoryError)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
def test_memory_that_really_runs_out(tmp_path: Path) -> None:
    """The address space of a process is limited, and an allocation of the CPU fails: a batch of 512 has no room."""
    argv = ["--model", "countdown:V=64,L=256", "--device", "cpu", "--nfe", "2", "--num-sequences", "512"]
    argv += ["--batch-size", "512", "--teacher-steps", "2", "--method", "lsd+", "--output-dir", str(tmp_path)]
    outcome = run_child([*argv, "--cache-dir", "/dev/null"], limits={"AS": 100 * 2**20})
    assert is_one_sentence(outcome, "out of memory with `--batch-size 512`: try `--batch-size 256`."), outcome.output


# ---- a full disk ----


@pytest.mark.parametrize("method", ["path_kl", "lsd", "lsd+", "jys"])
def test_a_full_disk_stops_a_run_and_resume_goes_on(method: str, tmp_path: Path) -> None:
    """A limit on the size of files stands for it: whichever file does not fit, the law is the same."""
    options = [*TRAIN, "--method", method, "--batch-size", "4", "--cache-dir", "/dev/null", "--resume"]
    whole, folder = tmp_path / "whole", tmp_path / "out"
    assert run_child([*options, "--output-dir", str(whole)]).code == 0
    stopped = 0
    for size in (100, 500, 900, 1_300, 1_700, 2_500, 4_000):
        outcome = run_child([*options, "--output-dir", str(folder)], limits={"FSIZE": size})
        if outcome.code == 0:
            break
        stopped += 1
        kept = len(list((folder / "progress").glob("*")))
        says = f" {kept} finished parts are kept in {folder / 'progress'}: go on with `--resume`" if kept else ""
        assert is_one_sentence(outcome, "File too large: '", says), outcome.output
        assert not [path for path in folder.rglob(".*")]
        shutil.rmtree(folder) if stopped == 2 else None
    assert stopped >= 3
    assert run_child([*options, "--output-dir", str(folder)]).code == 0
    assert contents(folder) == contents(whole)


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[None]:
    """A file system in memory, of that size; the test is skipped where it may not be mounted."""
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={size}", "lsd_sampler", str(folder)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(options, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """Of growing size, each found full; at the end one that has room."""
    whole, disk = tmp_path / "whole", tmp_path / "disk"
    options = [*TRAIN, "--method", "path_kl", "--batch-size", "2", "--cache-dir", "/dev/null", "--resume"]
    assert run_child([*options, "--output-dir", str(whole)]).code == 0
    stopped = 0
    with mounted(disk, "4k"):
        for pages in (1, 2, 4, 6, 8, 10, 12, 64):
            resize = ["mount", "-o", f"remount,size={pages * 4}k", str(disk)]
            subprocess.run(resize, check=True)
            outcome = run_child([*options, "--output-dir", str(disk / "out")])
            if outcome.code == 0:
                break
            stopped += 1
            assert is_one_sentence(outcome, "No space left on device: '"), outcome.output
            assert not [path for path in disk.rglob(".*")]
        assert stopped >= 3
        assert contents(disk / "out") == contents(whole)


def test_samples_are_printed_even_if_they_cannot_be_written(tmp_path: Path) -> None:
    output = tmp_path / "new" / "samples.jsonl"
    argv = [*ORACLE, "--num-samples", "32", "--nfe", "4", "--output", str(output)]
    outcome = run_child(argv, command="sample", limits={"FSIZE": 1000})
    assert is_one_sentence(outcome, "File too large", str(output)), outcome.output
    # all but the first, which comes after a progress bar, and the last, which comes before the sentence
    assert [len(text.split()) for text in outcome.output.split("\n\n")[1:-1]] == [16] * 30
    assert [path.name for path in output.parent.iterdir()] == ["samples.jsonl.part"]  # what `--resume` goes on with
    assert run_child([*argv, "--resume"], command="sample").code == 0
    assert len(output.read_text().splitlines()) == 32


# ---- a folder that cannot be written to ----


def test_a_folder_that_becomes_a_file_on_the_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = [*TRAIN, "--method", "path_kl", "--batch-size", "2", "--cache-dir", "/dev/null"]
    assert train.main([*argv, "--output-dir", str(tmp_path / "whole")]) == 0
    folder, aside = tmp_path / "out", tmp_path / "aside"
    calls, forward = [0], MarkovDenoiser.forward

    def spoils(self: MarkovDenoiser, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == 50:
            folder.rename(aside)
            folder.write_text("mine")
        return forward(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(MarkovDenoiser, "forward", spoils)
        last = fails(capsys, "lsd-train", [*argv, "--output-dir", str(folder)], str(folder))
    assert "kept" not in last  # nothing is, where it was to be
    assert folder.read_text() == "mine"
    folder.unlink()
    aside.rename(folder)
    assert train.main([*argv, "--output-dir", str(folder), "--resume"]) == 0
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_folder_that_vanishes_on_the_way_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = [*TRAIN, "--method", "lsd+", "--batch-size", "2", "--cache-dir", "/dev/null"]
    assert train.main([*argv, "--output-dir", str(tmp_path / "whole")]) == 0
    folder, calls, forward = tmp_path / "out", [0], MarkovDenoiser.forward

    def vanishes(self: MarkovDenoiser, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == 50:
            shutil.rmtree(folder)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(MarkovDenoiser, "forward", vanishes)
    assert train.main([*argv, "--output-dir", str(folder)]) == 0
    assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
def test_an_unwritable_folder_is_known_after_one_network_call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In /proc not even root may make a folder."""
    seen = raises_from(monkeypatch, 1000)
    fails(capsys, "lsd-train", [*TRAIN, "--output-dir", "/proc/lsd-train"], "/proc/lsd-train")
    assert len(seen) <= 1
    fails(capsys, "lsd-sample", [*ORACLE, "--output", "/proc/lsd-sample/samples.jsonl"], "/proc/lsd-sample")


def test_an_unusable_cache_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for name, cache in (("without", tmp_path / "file"), ("with", tmp_path / "cache")):
        assert train.main([*TRAIN, "--output-dir", str(tmp_path / name), "--cache-dir", str(cache)]) == 0
    assert contents(tmp_path / "without") == contents(tmp_path / "with")
    assert (tmp_path / "file").read_text() == "mine"
