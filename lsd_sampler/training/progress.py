"""Progress of a distillation on disk: one that was killed resumes from there, with the same result."""

import contextlib
import copy
import secrets
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..support.atomic import remove_leftovers, write_atomically
from ..support.identity import Undescribable, identity
from ..support.workers import Workers


PREFIX = "progress-"


class Progress:
    """Named sets of tensors in a folder, each written whole or not at all.

    Args:
        folder (`Path`, *optional*): where they are kept; nothing is kept without it.
        task (`dict`): describes the work. Progress of another task is refused, and so is progress of a task that
            cannot be told apart from others.
        resume (`bool`): whether to go on with what the folder holds; otherwise that is removed first.
        workers ([`Workers`], *optional*): the processes that share the work. One process reads and writes what all
            have in common.
    """

    def __init__(
        self,
        folder: Path | None = None,
        task: dict[str, Any] | None = None,
        resume: bool = False,
        workers: Workers | None = None,
    ):
        self.folder, self.workers, self._prefix = folder, workers or Workers(), PREFIX
        task = {**(task or {}), "processes": self.workers.size}
        self._unknown = ""
        try:
            self._task = identity(task)
        except Undescribable as error:
            self._task, self._unknown = secrets.token_hex(32), str(error)
        if folder is not None:
            if self.workers.is_main:
                remove_leftovers(folder)
                if not resume:
                    self.clear()
            self.workers.wait()
        self._started = time.perf_counter() - self._spent()

    @property
    def seconds(self) -> float:
        """The time that the work has taken, including runs that were stopped, up to their last progress on disk."""
        return time.perf_counter() - self._started

    def part(self, name: str) -> "Progress":
        """A view of the same folder, in which all names are of this part of the work."""
        part = copy.copy(self)
        part._prefix = f"{self._prefix}{name}-"
        return part

    def load(self, name: str, own: bool = False) -> dict[str, torch.Tensor] | None:
        """The tensors kept under a name, or None.

        Args:
            name (`str`): what they are.
            own (`bool`): whether each process has its own; otherwise they are the same for all.

        Raises:
            ValueError: if the file is damaged, or of another task.
        """
        if own:
            return self._read(self._path(self._own(name)))
        return self.workers.broadcast(self._read(self._path(name)) if self.workers.is_main else None)

    def save(self, name: str, tensors: dict[str, torch.Tensor], own: bool = False) -> None:
        """Keeps tensors under a name, in place of what was there; `own` as for `load`."""
        path = self._path(self._own(name) if own else name)
        if path is not None and (own or self.workers.is_main):
            tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            write_atomically(path, save(tensors, metadata={"task": self._task, "seconds": str(self.seconds)}))

    def _own(self, name: str) -> str:
        return name if self.workers.size == 1 else f"{name}-of-{self.workers.rank}"

    def _read(self, path: Path | None) -> dict[str, torch.Tensor] | None:
        if path is None or not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                task = (file.metadata() or {}).get("task")
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged: remove it, or start without resuming. ({error})") from error
        if task != self._task and self._unknown:
            raise ValueError(
                f"{path} cannot be resumed: the pipeline is called with {self._unknown}, and there is no telling"
                " whether it is the same. Leave that out, or start without resuming."
            )
        if task != self._task:
            raise ValueError(
                f"{path} was begun with other options, another model or other prompts, or by other versions of the"
                " libraries: use the same, or start without resuming."
            )
        return tensors

    def _spent(self) -> float:
        """The latest time in the files of this task. A damaged file is reported when it is read."""
        latest = 0.0
        for path in [] if self.folder is None else kept_files(self.folder):
            with (
                contextlib.suppress(SafetensorError, ValueError, FileNotFoundError),
                safe_open(path, framework="pt") as file,
            ):
                metadata = file.metadata() or {}
                if metadata.get("task") == self._task:
                    latest = max(latest, float(metadata.get("seconds", 0)))
        return latest

    def clear(self) -> None:
        """Removes all that was kept, and the folder if nothing else is in it."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in kept_files(self.folder):
            path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _path(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{self._prefix}{name}.safetensors"


def kept_files(folder: Path) -> list[Path]:
    """What a distillation has kept in a folder so far; nothing if there is no such folder."""
    return sorted(folder.glob(f"{PREFIX}*.safetensors"))
