"""The figure of a learned schedule, drawn by matplotlib (an extra, imported late)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..support.atomic import replacing
from ..support.figures import COLOURS, style_axes


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
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6 if coefficients else 5.4, 4.2), layout="constrained")
    axes = figure.subplots(1, 2 if coefficients else 1, squeeze=False)[0]
    colours = dict(zip(schedules, (COLOURS[i % len(COLOURS)] for i in range(len(schedules))), strict=True))
    axes[0].plot([0, 1], [1, 0], color="black", linestyle="--", linewidth=1, label="uniform")
    for label, times in schedules.items():
        axes[0].plot(np.linspace(0, 1, len(times)), times, marker="o", markersize=3, color=colours[label], label=label)
    axes[0].set(xlabel="share of the steps done", ylabel="time t (1 = all masked)")
    style_axes(axes[0], "learned steps")
    if coefficients:
        axes[1].axhline(1, color="black", linestyle="--", linewidth=1)
        for label, values in coefficients.items():
            place = (np.arange(len(values)) + 0.5) / len(values)
            axes[1].plot(place, values, marker="o", markersize=3, color=colours.get(label, "#777777"), label=label)
        axes[1].set(xlabel="share of the steps done", ylabel="coefficient")
        style_axes(axes[1], "learned coefficients")
    axes[0].legend(frameon=False)
    figure.suptitle(title)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
