"""Figures of matplotlib (an extra, imported late) that do not depend on the environment or on a matplotlibrc."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .atomic import replacing


if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Told apart by colour-blind readers, in print, and on light and dark ground; after Paul Tol's bright scheme.
COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#777777", "#000000")


@contextmanager
def default_style(settings: Mapping[str, Any] | None = None) -> Iterator[None]:
    """matplotlib's own defaults and `settings`, without those of a matplotlibrc. No text is read as a formula: a `$`
    in the name of a model is a `$`.

    Raises:
        ImportError: without matplotlib.
    """
    _import_matplotlib()
    from matplotlib import style

    with style.context(["default", {"text.parse_math": False, **(settings or {})}]):
        yield


def new_figure(**options: Any) -> "Figure":
    """A figure that is drawn by Agg, which needs no display. Use it within [`default_style`]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", **options)
    FigureCanvasAgg(figure)
    return figure


def style_axes(ax: Any, title: str = "") -> None:
    """A heading, a light grid, and no frame above and on the right."""
    ax.set_title(title, fontsize=11)
    ax.grid(True, which="major", alpha=0.3, linewidth=0.6)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def save_figure(figure: "Figure", path: str | Path, title: str) -> None:
    """Saves a figure with a title over all panels; the suffix chooses the format."""
    figure.suptitle(title)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


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
