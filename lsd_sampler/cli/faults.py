"""Faults that stop `lsd-train`, each in one sentence that says what was kept or what to try."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..support.out_of_memory import BatchTooLarge, is_out_of_memory
from ..support.workers import Workers
from ..training import METHODS, DistillConfig
from ..training.progress import kept_files
from .common import smaller_batch


@contextmanager
def keeping_progress(folder: Path, config: DistillConfig, dtype: str | None) -> Iterator[None]:
    """Turns a full disk, a vanished folder or lack of memory into a sentence. After an interrupt it says how to go on.

    Args:
        folder (`Path`): the folder of finished parts.
        config ([`DistillConfig`]): the options of the run.
        dtype (`str`, *optional*): precision of the weights, where it was chosen.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(*(["go on with `--resume`"] if kept_files(folder) else [])) from error
    except (OSError, RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            flag, number = batch_flag(config, error.num_rows) if isinstance(error, BatchTooLarge) else ("", 1)
            raise OSError(smaller_batch(flag, number, dtype)) from error
        if not isinstance(error, OSError):
            raise
        num = len(kept_files(folder))
        kept = f" {num} finished parts are kept in {folder}: go on with `--resume`." if num else ""
        raise OSError(str(error).rstrip(".") + "." + kept) from error


def batch_flag(config: DistillConfig, num_rows: int) -> tuple[str, int]:
    """The flag of `lsd-train` that decided the size of a batch with this number of rows, and its value."""
    if config.coefficients == "two_sided":  # whole batches are sampled for them
        return "--batch-size", num_rows
    return METHODS[config.method].batch_flag(config, config.own_options, num_rows, Workers.here().size)
