"""The figure of a learned schedule, drawn by matplotlib (an extra, imported late)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..support.figures import COLOURS, default_style, new_figure, save_figure, style_axes


Curves = Mapping[str, Sequence[float]]
"""Label, such as "8 calls" -> numbers."""


def plot_schedule(
    schedules: Curves,
    path: str | Path,
    coefficients: Curves | None = None,
    title: str = "",
    *,
    open_after: Curves | None = None,
    masked_after: Curves | None = None,
) -> None:
    """Learned schedules: time against the share of calls made, and the coefficient of each call where given.

    Where the positions of a call are chosen, what is left after each call takes the place of the times.

    Args:
        schedules: label (such as "8 calls") -> decreasing times in [0, 1].
        path: where to save; the suffix chooses the format.
        coefficients (*optional*): label -> one number for each call.
        title (`str`): over all panels.
        open_after (*optional*): label -> share of the budget that is open at the start and after each call.
        masked_after (*optional*): label -> share of tokens that are masked after each call.

    Raises:
        ValueError: if `schedules`, `open_after` and `masked_after` are empty.
    """
    if not schedules and not open_after and not masked_after:
        raise ValueError("`schedules` must not be empty.")
    panels = [
        (draw, curves)
        for draw, curves in (
            (_draw_open, open_after),
            (_draw_masked, masked_after),
            (_draw_times, schedules),
            (_draw_coefficients, coefficients),
        )
        if curves
    ]
    labels = list(dict.fromkeys(label for _, curves in panels for label in curves))
    colours = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)}
    with default_style():
        figure = new_figure(figsize=(4.8 * len(panels) if len(panels) > 1 else 5.4, 4.2))
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, (draw, curves) in zip(axes, panels, strict=True):
            draw(ax, curves, colours)
        axes[0].legend(frameon=False)
        save_figure(figure, path, title)


def _draw_open(ax: Any, open_after: Curves, colours: Mapping[str, str]) -> None:
    _draw_curves(ax, open_after, colours)
    ax.set(xlabel="share of the calls done", ylabel="left open: product of (1 - share)")
    style_axes(ax, "learned shares of what is open")


def _draw_masked(ax: Any, masked_after: Curves, colours: Mapping[str, str]) -> None:
    _draw_curves(ax, masked_after, colours, starts_at=1)
    ax.set(xlabel="share of the calls done", ylabel="mean share of tokens")
    style_axes(ax, "still masked, as measured")


def _draw_times(ax: Any, schedules: Curves, colours: Mapping[str, str]) -> None:
    _draw_curves(ax, schedules, colours)
    ax.set(xlabel="share of the steps done", ylabel="time t (1 = all masked)")
    style_axes(ax, "learned steps")


def _draw_curves(ax: Any, curves: Curves, colours: Mapping[str, str], starts_at: int = 0) -> None:
    """Curves that fall to the end of the calls, beside the uniform one. They start before the first call, or after."""
    ax.plot([0, 1], [1, 0], color="black", linestyle="--", linewidth=1, label="uniform")
    for label, values in curves.items():
        last = len(values) - 1 + starts_at
        place = np.arange(starts_at, last + 1) / last
        ax.plot(place, values, marker="o", markersize=3, color=colours[label], label=label)


def _draw_coefficients(ax: Any, coefficients: Curves, colours: Mapping[str, str]) -> None:
    ax.axhline(1, color="black", linestyle="--", linewidth=1)
    for label, values in coefficients.items():
        place = (np.arange(len(values)) + 0.5) / len(values)
        ax.plot(place, values, marker="o", markersize=3, color=colours[label], label=label)
    ax.set(xlabel="share of the steps done", ylabel="coefficient")
    style_axes(ax, "learned coefficients")
