"""Which thread a scheduler serves. A scheduler holds the state of a generation, so it serves one thread at a time."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any


class SchedulerInUse(RuntimeError):
    """Two threads use one scheduler at a time."""

    def __init__(self) -> None:
        super().__init__(
            "This scheduler is at work for another thread, and holds the state of one generation only: give each"
            " thread a pipeline with its own, `copy.deepcopy(pipeline.scheduler)`."
        )


class Ownership:
    """The thread that owns a scheduler. It owns it from `set_timesteps` on, and keeps it from its first step until its
    last, or until it leaves the function that makes the steps (so a thread that failed does not keep it).

    A thread that has made no step yet may lose the scheduler to the next `set_timesteps` of another thread; its first
    step then fails. A copy has no owner.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._owner: int | None = None
        self._code: CodeType | None = None
        self._is_at_work = False
        self._displaced: set[int] = set()

    def __reduce__(self) -> Any:
        return Ownership, ()

    @contextmanager
    def beginning(self, caller: FrameType | None, goes_on: bool = False) -> Iterator[None]:
        """A context in which the calling thread sets up a generation.

        Args:
            caller: the frame that does so.
            goes_on (`bool`): whether a thread at work stays so, because this is not its first generation.

        Raises:
            SchedulerInUse: if another thread is in the middle of one.
        """
        with self._lock:
            self._refuse_others()
            if self._owner not in (None, threading.get_ident()):
                self._displaced = (self._displaced | {self._owner}) & sys._current_frames().keys()
            self._displaced.discard(threading.get_ident())
            stays = goes_on and self._is_at_work and self._owner == threading.get_ident()
            self._belong_to_this_thread(caller, is_at_work=stays)
            yield

    @contextmanager
    def stepping(self, caller: FrameType | None) -> Iterator[None]:
        """A context in which the calling thread makes a step.

        Raises:
            SchedulerInUse: if another thread is in the middle of a generation, or has begun one since.
        """
        with self._lock:
            if threading.get_ident() in self._displaced:
                raise SchedulerInUse
            self._refuse_others()
            self._belong_to_this_thread(caller, is_at_work=True)
            yield

    def finish(self) -> None:
        """Releases the scheduler: the generation is complete."""
        self._is_at_work = False

    def _belong_to_this_thread(self, caller: FrameType | None, is_at_work: bool) -> None:
        self._owner, self._code = threading.get_ident(), caller.f_code if caller else None
        self._is_at_work = is_at_work

    def _refuse_others(self) -> None:
        if self._is_at_work and self._owner != threading.get_ident() and self._owner_is_inside():
            raise SchedulerInUse

    def _owner_is_inside(self) -> bool:
        frame = sys._current_frames().get(self._owner or 0)
        while frame is not None:
            if frame.f_code is self._code:
                return True
            frame = frame.f_back
        return False


def caller_of(method: str) -> FrameType | None:
    """The frame that called a scheduler's method of this name: the first that belongs neither to torch nor to the
    method or an override of it. (Its variables are not read, because that would keep a pipeline's tensors alive.)
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and (
        frame.f_code.co_name == method or frame.f_globals.get("__name__", "").startswith("torch.")
    ):
        frame = frame.f_back
    return frame
