"""Files that are written whole or not at all."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


_PREFIX = ".temporary-"


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path`, of the same suffix, that replaces it when all went well.

    Raises:
        OSError: if the file cannot be written; it names the file.
    """
    path = Path(os.path.expanduser(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{_PREFIX}{path.stem}-", suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o666 & ~_umask())  # mkstemp's files are private
        os.replace(name, path)
    except OSError as error:
        # when the disk is full, the system does not name the file
        if error.errno is not None and error.filename in (None, name):
            error.filename = str(path)
        raise
    finally:
        _remove(name)


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
    """Writes one file."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def remove_leftovers(folder: Path, older_than: float = 0.0) -> None:
    """Removes temporary files of writers that were killed.

    Args:
        folder (`Path`): the folder; a missing one is no error.
        older_than (`float`, defaults to 0): in seconds; younger files may belong to a writer that is still at work.
    """
    for path in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime >= older_than:
                path.unlink()


def _remove(name: str) -> None:
    with suppress(OSError):  # it has replaced the file, or the whole folder is gone
        os.unlink(name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
