"""Signs of life: every call of the network counts, so that something moves at least every few seconds."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


SECONDS_BETWEEN = 5.0  # of lines; of a bar where nobody sees it move, such as a file


def say(text: str = "") -> None:
    """A line on stdout, above any bar."""
    tqdm.write(text)
    sys.stdout.flush()


@contextmanager
def lines_of_calls(network: Any, doing: str) -> Iterator[None]:
    """A line every few seconds with the number of network calls so far, where their total is not known."""
    began, calls, said = time.perf_counter(), 0, time.perf_counter()

    def count(*_: Any) -> None:
        nonlocal calls, said
        calls, now = calls + 1, time.perf_counter()
        if now - said > SECONDS_BETWEEN:
            say(f"  {doing}: {calls} network calls, {now - began:.0f} s")
            said = now

    with _hooked(network, count):
        yield
    say(f"  {doing}: done, {calls} network calls in {time.perf_counter() - began:.0f} s")


@contextmanager
def bar_of_calls(network: Any, total: int, doing: str) -> Iterator[None]:
    """A bar with one unit for each network call, a batch of samples each, and the time that is left."""
    interval = 0.2 if sys.stderr.isatty() else SECONDS_BETWEEN
    options = {"mininterval": interval, "miniters": 1}  # calls are not equally fast
    with tqdm(total=total, desc=f"  {doing}", unit="call", file=sys.stderr, **options) as bar:

        def count(*_: Any) -> None:  # a hook that returned anything would replace the output
            bar.update()

        with _hooked(network, count):
            yield


@contextmanager
def _hooked(network: Any, hook: Any) -> Iterator[None]:
    handle = network.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
