"""The figure of a learned schedule, drawn by matplotlib (an extra, imported late)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..support.figures import COLOURS, default_style, new_figure, save_figure, style_axes


def plot_schedule(
    schedules: Mapping[str, Sequence[float]],
    path: str | Path,
    coefficients: Mapping[str, Sequence[float]] | None = None,
    title: str = "",
) -> None:
    """Learned schedules: time against the share of calls made, and the coefficient of each call where given.

    Args:
        schedules: label (such as "8 calls") -> decreasing times in [0, 1].
        path: where to save; the suffix chooses the format.
        coefficients (*optional*): label -> one number for each call.
        title (`str`): over all panels.

    Raises:
        ValueError: if `schedules` is empty.
    """
    if not schedules:
        raise ValueError("`schedules` must not be empty.")
    with default_style():
        figure = new_figure(figsize=(9.6 if coefficients else 5.4, 4.2))
        axes = figure.subplots(1, 2 if coefficients else 1, squeeze=False)[0]
        colours = dict(zip(schedules, (COLOURS[i % len(COLOURS)] for i in range(len(schedules))), strict=True))
        _draw_times(axes[0], schedules, colours)
        if coefficients:
            _draw_coefficients(axes[1], coefficients, colours)
        axes[0].legend(frameon=False)
        save_figure(figure, path, title)


def _draw_times(ax: Any, schedules: Mapping[str, Sequence[float]], colours: Mapping[str, str]) -> None:
    ax.plot([0, 1], [1, 0], color="black", linestyle="--", linewidth=1, label="uniform")
    for label, times in schedules.items():
        ax.plot(np.linspace(0, 1, len(times)), times, marker="o", markersize=3, color=colours[label], label=label)
    ax.set(xlabel="share of the steps done", ylabel="time t (1 = all masked)")
    style_axes(ax, "learned steps")


def _draw_coefficients(ax: Any, coefficients: Mapping[str, Sequence[float]], colours: Mapping[str, str]) -> None:
    ax.axhline(1, color="black", linestyle="--", linewidth=1)
    for label, values in coefficients.items():
        place = (np.arange(len(values)) + 0.5) / len(values)
        ax.plot(place, values, marker="o", markersize=3, color=colours.get(label, "#777777"), label=label)
    ax.set(xlabel="share of the steps done", ylabel="coefficient")
    style_axes(ax, "learned coefficients")
