"""Sends what a distillation logs to the experiment trackers that accelerate knows: `lsd-train --report-to`."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


PROJECT = "lsd_sampler"
"""What trackers call the project; tensorboard's files lie in a folder of that name."""

Track = Callable[[dict[str, Any]], None]


@contextmanager
def tracking(report_to: Sequence[str], folder: Path, config: dict[str, Any], on_cpu: bool = True) -> Iterator[Track]:
    """Yields a function that sends a record to trackers. A tracker that fails on the way is dropped.

    Args:
        report_to (`list[str]`): names of trackers; `all` means all that are installed, `none` means none.
        folder (`Path`): where trackers that write files write them.
        config (`dict`): what is learned, and how.
        on_cpu (`bool`): whether the distillation runs on the CPU.

    Raises:
        ValueError: if there is no such tracker, its package (or accelerate) is missing, or it cannot be started.
    """
    names = available(report_to)
    if not names:
        yield lambda _: None
        return
    trackers = _Trackers(names, folder, config, on_cpu)
    try:
        yield trackers.log
    finally:
        trackers.end()


def available(report_to: Sequence[str]) -> list[str]:
    """The trackers that `--report-to` names, all of them usable.

    Raises:
        ValueError: if one cannot.
    """
    if list(report_to) in ([], ["none"]):
        return []
    try:
        from accelerate.tracking import get_available_trackers
        from accelerate.utils import LoggerType
    except ImportError as error:
        raise ValueError("`--report-to` needs accelerate: `pip install lsd_sampler[train]`.") from error
    known, installed = LoggerType.list(), [str(LoggerType(name)) for name in get_available_trackers()]
    for name in report_to:
        if name not in known:
            raise ValueError(f"`--report-to` must be none, all, or some of {known[1:]}; got {name!r}.")
        if name not in ("all", *installed):
            raise ValueError(f"`--report-to {name}` needs a package that is not installed: `pip install {name}`.")
    if "all" not in report_to:
        return list(dict.fromkeys(report_to))
    if not installed:
        print("No tracker is installed: `--report-to all` reports to none.", file=sys.stderr)
    return installed


def remove_tracked(folder: Path) -> None:
    """Removes tensorboard's files of earlier runs in a folder, which it would show as one with a new run.

    Only files with its names are removed, and folders that are empty afterwards.
    """
    files = [*(folder / PROJECT).rglob("events.out.tfevents.*"), *(folder / PROJECT).glob("*/hparams.yml")]
    for path in files:
        path.unlink(missing_ok=True)
    for parent in sorted({path.parent for path in files}, reverse=True):  # subfolders first
        if not any(parent.iterdir()):
            parent.rmdir()


def flatten(record: dict[str, Any]) -> dict[str, float | str]:
    """The numbers and words of a record by name: `schedule/nfe_8/known_after_step/0`.

    The names of a candidate's values begin with its own, as in `METHOD:random/steps/nfe_8/network_calls`.
    """
    measured = f"{record['method']}:{record['order']}" if record["event"] == "candidate" else None
    candidate = record.get("candidate", measured)
    parts = [candidate, record["event"], f"nfe_{record['nfe']}" if "nfe" in record else None]
    prefix = "/".join(part for part in parts if part)
    rest = {key: value for key, value in record.items() if key not in ("event", "nfe", "candidate")}
    return dict(_leaves(prefix, rest))


def _leaves(name: str, value: Any) -> Iterator[tuple[str, float | str]]:
    if isinstance(value, dict | list | tuple):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(f"{name}/{key}", part)
    elif value is not None:
        yield name, int(value) if isinstance(value, bool) else value


class _Trackers:
    """The trackers of an `Accelerator`; step i is record i.

    They are called one by one, so that one that fails does not stop the others, and because `end_training` would also
    end the process group of the distillation.
    """

    def __init__(self, names: list[str], folder: Path, config: dict[str, Any], on_cpu: bool):
        from accelerate import Accelerator

        self.step = 0
        hyperparameters = {
            key: " ".join(map(str, value)) if isinstance(value, list | tuple) else value
            for key, value in config.items()
            if value is not None
        }
        with _in_a_sentence(names):
            self.accelerator: Any = Accelerator(log_with=[*names], project_dir=folder, cpu=on_cpu)
            self.accelerator.init_trackers(PROJECT, hyperparameters)

    def log(self, record: dict[str, Any]) -> None:
        values = flatten(record)
        for tracker in list(self.accelerator.trackers):
            try:
                tracker.log(values, step=self.step)
            except Exception as error:
                print(f"{tracker.name} failed and is done without: {error}", file=sys.stderr)
                self.accelerator.trackers.remove(tracker)
        self.step += 1

    def end(self) -> None:
        for tracker in self.accelerator.trackers:
            try:
                tracker.finish()
            except Exception as error:
                print(f"{tracker.name} could not finish: {error}", file=sys.stderr)


@contextmanager
def _in_a_sentence(names: list[str]) -> Iterator[None]:
    """Trackers have errors of their own (no account, no connection, a full disk)."""
    try:
        yield
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"`--report-to {' '.join(names)}` cannot be started: {first}") from error
