"""A step after long work, such as a plot, must not lose the work: its failure is a warning on stderr."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


_MATPLOTLIB_MISSING = "matplotlib is not installed: `pip install lsd_sampler[eval]`."


@contextmanager
def as_warning(what: str) -> Iterator[None]:
    """Turns any failure inside into a warning.

    Args:
        what (`str`): the warning's first words, such as "No report.html".
    """
    try:
        yield
    except Exception as error:
        _warn(what, error)


@contextmanager
def optional_plot(path: Path) -> Iterator[None]:
    """For drawing to `path`: any failure is a warning, and no plot of an earlier run stays there."""
    try:
        yield
    except Exception as error:
        path.unlink(missing_ok=True)
        if lacks_matplotlib(error):
            print(f"No {path.name}, as {_MATPLOTLIB_MISSING}", file=sys.stderr)
        else:
            _warn(f"No {path.name}", error)


def lacks_matplotlib(error: BaseException) -> bool:
    """Whether matplotlib is simply not installed; one that is there but cannot be imported is another matter."""
    return isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "matplotlib"


def _warn(what: str, error: Exception) -> None:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    print(f"Warning: {what}: {reason}", file=sys.stderr)
