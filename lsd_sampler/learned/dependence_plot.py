"""The figure of a learned dependence between positions, drawn by matplotlib (an extra, imported late)."""

from pathlib import Path
from typing import Any

import numpy as np

from ..sampling.dependence import Dependence
from ..support.figures import default_style, new_figure, save_figure, style_axes


NEARLY_ZERO = 0.01
"""Offsets are drawn up to the last one that has this share of the strongest value."""
_COLUMNS = 4
_KAPPA = "kappa (share of the smaller entropy)"


def plot_dependence(dependence: Dependence, path: str | Path, title: str = "") -> None:
    """Kappa as a picture: for each bucket of the known share a heat map, or by offset a line.

    What a position has in common with itself is left out. Offsets are drawn up to the last one that matters; the axis
    says how strong the others are at most.

    Args:
        dependence ([`Dependence`]): with usable numbers.
        path: where to save; the suffix chooses the format.
        title (`str`): over all panels.
    """
    kappa = dependence.kappa.double().cpu().numpy()
    with default_style():
        if dependence.layout == "offset":
            figure = _lines(*_cut(kappa))
        elif dependence.layout == "offset_2d":
            cut_KRC, beyond = _cut(kappa)
            figure = _maps(cut_KRC, ("distance in rows", f"distance in columns{beyond}"))
        else:
            itself_LL = np.eye(kappa.shape[1], dtype=bool)
            figure = _maps(np.where(itself_LL, np.nan, kappa), ("position", "position"))
        save_figure(figure, path, title)


def _cut(kappa: np.ndarray) -> tuple[np.ndarray, str]:
    """Kappa by offset up to the last one that matters along each axis, NaN at no distance; and what to say of the
    others.
    """
    itself = (slice(None), *[0] * (kappa.ndim - 1))
    others = kappa.copy()
    others[itself] = 0
    matters = np.argwhere(others > NEARLY_ZERO * others.max()).max(0, initial=0)[1:]
    near = (slice(None), *(slice(max(1, last) + 1) for last in matters))
    cut = kappa[near].copy()
    cut[itself] = np.nan
    others[near] = 0
    return cut, "" if cut.shape == kappa.shape else f" (beyond these at most {others.max():.2g})"


def _lines(kappa_KD: np.ndarray, beyond: str) -> Any:
    from matplotlib import colormaps

    K, D = kappa_KD.shape
    figure = new_figure(figsize=(5.8, 4.2))
    ax = figure.subplots()
    for k, kappa_D in enumerate(kappa_KD):
        colour = colormaps["viridis"](0.85 * k / max(1, K - 1))  # its last part is too light for a line
        ax.plot(np.arange(1, D), kappa_D[1:], marker="o", markersize=3, color=colour, label=_bucket(k, K))
    ax.set(xlabel=f"distance in positions{beyond}", ylabel=_KAPPA, ylim=(0, None))
    _count(ax.xaxis)
    style_axes(ax, "dependence between two positions")
    ax.legend(frameon=False)
    return figure


def _maps(kappa_KRC: np.ndarray, names: tuple[str, str]) -> Any:
    K = len(kappa_KRC)
    rows = -(-K // _COLUMNS)
    columns = -(-K // rows)
    figure = new_figure(figsize=(1.8 + 2.6 * columns, 1.2 + 2.6 * rows))
    panels = figure.subplots(rows, columns, squeeze=False)
    strongest = np.nan_to_num(kappa_KRC).max()
    images = [_draw_map(ax, kappa_RC, strongest) for ax, kappa_RC in zip(panels.flat, kappa_KRC, strict=False)]
    for k, ax in enumerate(panels.flat):
        ax.set_visible(k < K)
        ax.set_title(_bucket(k, K), fontsize=11)
    figure.supylabel(names[0], fontsize=10)
    figure.supxlabel(names[1], fontsize=10)
    figure.colorbar(images[0], ax=panels, label=_KAPPA)
    return figure


def _draw_map(ax: Any, kappa_RC: np.ndarray, strongest: float) -> Any:
    from matplotlib import colormaps

    colours = colormaps["YlGnBu"].with_extremes(bad="#BBBBBB")
    for axis in (ax.xaxis, ax.yaxis):
        _count(axis)
    return ax.imshow(kappa_RC, cmap=colours, vmin=0, vmax=strongest or 1, interpolation="nearest")


def _count(axis: Any) -> None:
    """Ticks at whole numbers."""
    axis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def _bucket(k: int, num_buckets: int) -> str:
    """The known share of the canvas in a bucket."""
    return f"{100 * k / num_buckets:.0f} to {100 * (k + 1) / num_buckets:.0f} % known"
