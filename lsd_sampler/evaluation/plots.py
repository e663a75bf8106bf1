"""Charts of evaluations and schedules, drawn by matplotlib (an extra, imported late)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import replacing
from .rows import Row, check_columns


# Paul Tol's bright scheme: told apart by colour-blind readers and in print.
COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#777777", "#000000")
MARKERS = "osD^vP*X"


def _style(ax: Any, title: str) -> None:
    ax.set_title(title, fontsize=11)
    ax.grid(True, which="major", alpha=0.3, linewidth=0.6)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def _draw_metric(ax: Any, rows: Sequence[Row], metric: str, samplers: Sequence[str]) -> None:
    """One line for each sampler, with its bootstrap interval as a band where the rows have one."""
    for number, name in enumerate(samplers):
        chosen = sorted(
            (row for row in rows if row["sampler"] == name and row.get(metric) is not None), key=lambda row: row["nfe"]
        )
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        x = [row["nfe"] for row in chosen]
        ax.plot(
            x, [row[metric] for row in chosen], color=colour, marker=marker, markersize=5, label=name, clip_on=False
        )
        if chosen and all(row.get(f"{metric}_low") is not None for row in chosen):
            low, high = ([row[metric + end] for row in chosen] for end in ("_low", "_high"))
            ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def _scale_axes(ax: Any, rows: Sequence[Row], metric: str, floor: float | None) -> None:
    steps = sorted({row["nfe"] for row in rows})
    ax.set_xscale("log", base=2)
    ax.set_xticks(steps, [str(n) for n in steps])
    ax.minorticks_off()
    ax.set_xlabel("network calls (NFE)")
    values = [row[metric] for row in rows if row.get(metric) is not None] + ([floor] if floor is not None else [])
    positive = [value for value in values if value > 0]
    if values and len(positive) == len(values):
        ax.set_yscale("log")
    elif positive:  # an exact zero still deserves a place on the axis
        ax.set_yscale("symlog", linthresh=min(positive))
        ax.set_ylim(bottom=min(0, *values))


def plot_quality_vs_nfe(
    rows: Sequence[Row],
    path: str | Path,
    metrics: Sequence[str] | Mapping[str, str],
    title: str = "",
    floor: Mapping[str, Any] | None = None,
    *,
    floor_label: str = "real data, same size",
) -> None:
    """Quality against network calls: one panel for each metric, one line for each sampler, the floor dashed.

    Args:
        rows: as `best_per_sampler` returns them; those without an NFE (floors) are not drawn.
        path: where to save; the suffix chooses the format.
        metrics: keys to draw, or key -> axis title. Lower is better is assumed of none of them.
        title (`str`): over all panels.
        floor (*optional*): the metrics of real data (`floor_row`).
        floor_label (`str`): its name in the legend.

    Raises:
        ValueError: if there is nothing to draw, or a likelihood would be drawn without an entropy.
    """
    drawn = [row for row in rows if row.get("nfe") is not None]
    if not drawn or not metrics:
        raise ValueError("`rows` and `metrics` must not be empty.")
    check_columns(metrics)
    from matplotlib.figure import Figure

    titles = metrics if isinstance(metrics, Mapping) else {name: name for name in metrics}
    samplers = list(dict.fromkeys(row["sampler"] for row in drawn))
    figure = Figure(figsize=(4.2 * len(titles) + 0.6, 4.4), layout="constrained")
    axes = figure.subplots(1, len(titles), squeeze=False)[0]
    for ax, (metric, heading) in zip(axes, titles.items(), strict=True):
        _draw_metric(ax, drawn, metric, samplers)
        level = floor.get(metric) if floor else None
        if level is not None:
            ax.axhline(level, color="black", linestyle="--", linewidth=1, label=floor_label)
        _scale_axes(ax, drawn, metric, level)
        _style(ax, heading)
    handles, names = max((ax.get_legend_handles_labels() for ax in axes), key=lambda pair: len(pair[1]))
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 4), frameon=False)
    figure.suptitle(title)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


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
    _style(axes[0], "learned steps")
    if coefficients:
        axes[1].axhline(1, color="black", linestyle="--", linewidth=1)
        for label, values in coefficients.items():
            place = (np.arange(len(values)) + 0.5) / len(values)
            axes[1].plot(place, values, marker="o", markersize=3, color=colours.get(label, "#777777"), label=label)
        axes[1].set(xlabel="share of the steps done", ylabel="coefficient")
        _style(axes[1], "learned coefficients")
    axes[0].legend(frameon=False)
    figure.suptitle(title)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
