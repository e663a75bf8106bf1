"""The commands in processes of their own, to be killed or starved. They are forked from a server that has imported
all, so that one costs milliseconds.
"""

import multiprocessing
import os
import resource
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm


SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["pytest", "lsd_sampler.cli.train", "lsd_sampler.cli.sample", "lsd_sampler.cards.sampler_card"]
)


@dataclass(frozen=True)
class Child:
    """What happens to a child.

    Args:
        limits (`dict`): resource limits, by name without `RLIMIT_`; an address space is counted beyond what the child
            holds when it starts.
        kill_after (`float`, *optional*): seconds until it is killed.
        kill_at (`int`, *optional*): it is killed when it is about to do so many things to files of `folder`.
        folder (`Path`, *optional*): see `kill_at`.
        calls (*optional*): a shared counter of network calls.
    """

    limits: dict[str, int]
    kill_after: float | None = None
    kill_at: int | None = None
    folder: Path | None = None
    calls: Any = None


@dataclass(frozen=True)
class Outcome:
    """Exit code (negative: the signal that killed it), and all that it printed."""

    code: int
    output: str

    @property
    def last(self) -> str:
        return self.output.strip().splitlines()[-1]


def run_child(argv: list[str], command: str = "train", **fate: Any) -> Outcome:
    """Runs a command to its end, or to its death."""
    child = Child(**{"limits": {}, **fate})
    reader, writer = SERVER.Pipe(duplex=False)
    process = SERVER.Process(target=_main, args=(command, argv, child, writer))
    process.start()
    writer.close()
    assert process.pid is not None
    timer = threading.Timer(child.kill_after or 0, os.kill, (process.pid, signal.SIGKILL))
    if child.kill_after is not None:
        timer.start()
    chunks = []
    while chunk := os.read(reader.fileno(), 2**16):
        chunks.append(chunk)
    timer.cancel()
    process.join()
    assert process.exitcode is not None
    return Outcome(process.exitcode, b"".join(chunks).decode())


def _main(command: str, argv: list[str], child: Child, writer: Any) -> None:
    os.dup2(writer.fileno(), 1)
    os.dup2(writer.fileno(), 2)
    writer.close()
    from lsd_sampler.cards import sampler_card as cards
    from lsd_sampler.cli import sample, train
    from lsd_sampler.denoisers import MarkovDenoiser

    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is shared by processes, and a killed one cannot give it back
    cards._plot = lambda *_: False  # plots cost more than all the rest
    if child.calls is not None:
        forward = MarkovDenoiser.forward

        def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
            child.calls.value += 1
            return forward(*args, **kwargs)

        MarkovDenoiser.forward = counted  # type: ignore[method-assign]
    if child.kill_at is not None:
        _kill_at(child.kill_at, str(child.folder))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for name, value in child.limits.items():
        value += _address_space() if name == "AS" else 0
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    sys.exit({"train": train, "sample": sample}[command].main(argv))


def _kill_at(number: int, folder: str) -> None:
    """Kills this process when it is about to open (to write), rename or remove a file, or to make or remove a folder,
    for the `number`-th time.
    """
    left = number

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"):
            return
        if not str(arguments[0]).startswith(folder) or (event == "open" and arguments[1] == "r"):
            return
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")
