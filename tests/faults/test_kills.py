"""`kill -9` at any moment: `lsd-train --resume` goes on from what was finished, to the same bytes."""

import itertools
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.child_processes import SERVER, run_child
from helpers.folder_contents import contents

from lsd_sampler.cards import sampler_card as cards
from lsd_sampler.cli import train
from lsd_sampler.denoisers import MarkovDenoiser
from lsd_sampler.training.progress import kept_files


ORACLE = ["--model", "countdown:V=4,L=16", "--device", "cpu", "--resume"]
# a kill can lose one part in the works, which takes no more network calls than the teacher has steps
LARGEST_PART = 16
METHODS = {
    "path_kl": ["--nfe", "2", "4", "8", "--num-sequences", "8", "--batch-size", "1", "--method", "path_kl"],
    "lsd": ["--nfe", "2", "4", "8", "--num-sequences", "4", "--batch-size", "1", "--method", "lsd"],
    "lsd+": ["--nfe", "2", "4", "8", "--num-sequences", "4", "--batch-size", "2", "--method", "lsd+"],
    "jys": ["--nfe", "2", "4", "--num-sequences", "4", "--method", "jys"],
    # these find no teacher paths in a cache
    "bootstrap": ["--nfe", "4", "--num-sequences", "4", "--batch-size", "1", "--method", "path_kl"]
    + ["--paths", "bootstrap", "--cache-dir", "/dev/null"],
    "adam": ["--nfe", "2", "4", "--num-sequences", "4", "--method", "lsd", "--optimizer", "adam", "--epochs", "4"]
    + ["--cache-dir", "/dev/null"],
}
KILLS = 20
# the calls that it takes to make the paths of all sequences, and the calls of a part thereafter
TEACHERS = {"path_kl": 129, "lsd": 65, "lsd+": 33, "jys": 17, "bootstrap": 65, "adam": 17}
PARTS = {"path_kl": 16, "lsd": 8, "lsd+": 16, "jys": 6, "bootstrap": 16, "adam": 4 * 4}


@pytest.fixture(scope="module", autouse=True)
def _server() -> None:
    """Started before anything is timed."""
    assert run_child(["--env"]).code == 0


@pytest.mark.parametrize("method", METHODS)
def test_twenty_kills_at_random_moments_lose_nothing(method: str, tmp_path: Path) -> None:
    """Every other kill comes after a random time, the others when a file is about to be opened, renamed or removed.

    The folder is that of an uninterrupted run, byte for byte but for times and names, and holds nothing else. Nothing
    finished is done again: a kill costs no more network calls than the part in the works.
    """
    chance, calls = random.Random(method), SERVER.RawValue("q", 0)
    folder, card = tmp_path / "killed", tmp_path / "killed" / "README.md"

    def argv(name: str) -> list[str]:
        paths = ["--output-dir", str(tmp_path / name), "--cache-dir", str(tmp_path / f"cache-{name}")]
        return [*ORACLE, *paths, *METHODS[method]]

    begun = time.perf_counter()
    assert run_child(argv("whole"), calls=calls).code == 0
    seconds, calls_of_a_run, calls.value = time.perf_counter() - begun, calls.value, 0
    kills, in_the_middle, finished, written = 0, 0, 0, None
    for number in itertools.count():
        if kills == KILLS:
            break
        if number % 2:
            outcome = run_child(argv("killed"), calls=calls, kill_at=chance.randint(1, 25), folder=folder)
        else:
            outcome = run_child(argv("killed"), calls=calls, kill_after=chance.uniform(0, seconds / 3))
        assert outcome.code in (0, -signal.SIGKILL), outcome.output
        kills += outcome.code != 0
        in_the_middle += bool(kept_files(folder / "progress"))
        now = card.stat().st_ino if card.exists() else None
        finished, written = finished + (now != written), now  # then the next begins anew
    assert run_child(argv("killed"), calls=calls).code == 0
    assert contents(folder) == contents(tmp_path / "whole")
    assert in_the_middle >= 5, "nearly all kills came before there was anything to lose"
    assert calls.value <= (finished + 1) * calls_of_a_run + KILLS * LARGEST_PART


def test_each_moment_of_writing_can_be_survived(tmp_path: Path) -> None:
    """Killed at the first thing that it does to a file; then, gone on with, at the second, and so on to the end: kills
    while a finished sampler is put in place of its parts are among them.
    """
    options = [*ORACLE, "--nfe", "2", "--num-sequences", "2", "--method", "lsd", "--cache-dir", str(tmp_path / "c")]
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    assert run_child([*options, "--output-dir", str(whole)]).code == 0
    for number in itertools.count(1):
        code = run_child([*options, "--output-dir", str(folder)], kill_at=number, folder=folder).code
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert number > 30
    assert contents(folder) == contents(whole)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_finished_is_not_done_again(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped at its n-th network call, for several n, and gone on with: both together make no more calls than one run
    and the part that was in the works.
    """
    monkeypatch.setattr(cards, "_plot", lambda *_: False)
    calls, stop_at, forward = [0], [0], MarkovDenoiser.forward

    def stopped(*args: Any, **kwargs: Any) -> torch.Tensor:
        if calls[0] == stop_at[0]:
            raise KeyboardInterrupt
        calls[0] += 1
        return forward(*args, **kwargs)

    monkeypatch.setattr(MarkovDenoiser, "forward", stopped)

    def calls_of_a_run(name: str, stop: int) -> int:
        calls[0], stop_at[0] = 0, stop
        code = train.main(
            [*ORACLE, "--cache-dir", "/dev/null", "--output-dir", str(tmp_path / name), *METHODS[method]]
        )
        assert code == (0 if stop < 0 else 130)
        return calls[0]

    whole = calls_of_a_run("whole", -1)
    for n in range(TEACHERS[method], whole, whole // 7):
        again = calls_of_a_run(f"stopped-{n}", n) + calls_of_a_run(f"stopped-{n}", -1)
        assert whole <= again <= whole + PARTS[method], f"stopped at {n} of {whole}"
