"""Figures of matplotlib (an extra, imported late) that do not depend on the environment or on a matplotlibrc."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def default_style(settings: Mapping[str, Any] | None = None) -> Iterator[None]:
    """matplotlib's own defaults, whatever a matplotlibrc says, and `settings`. No text is read as a formula: a `$` in
    the name of a model is a `$`.

    Raises:
        ImportError: without matplotlib.
    """
    _import_matplotlib()
    from matplotlib import style

    with style.context(["default", {"text.parse_math": False, **(settings or {})}]):
        yield


def new_figure(**options: Any) -> "Figure":
    """A figure that is drawn by Agg, which needs no display. To be used within [`default_style`]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", **options)
    FigureCanvasAgg(figure)
    return figure


def _import_matplotlib() -> None:
    """An MPLBACKEND that is not installed here, such as a notebook's, would keep matplotlib from being imported."""
    if "matplotlib" in sys.modules:
        import matplotlib  # fails where it was replaced by None

        return
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with suppress(ValueError):  # for other figures of this process
            matplotlib.rcParams["backend"] = backend
