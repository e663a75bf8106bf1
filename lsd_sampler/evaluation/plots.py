"""Charts of evaluations and schedules, drawn by matplotlib (an extra, imported late): PNG, and SVG for a page."""

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..support.figures import COLOURS, default_style, new_figure, save_figure, style_axes
from .columns import with_ends
from .rows import Row, check_columns


MARKERS = "osD^vP*X"
_CHARACTERS_PER_INCH, _HANDLE_CHARACTERS, _LINE_INCHES = 11.5, 6, 0.22  # of a legend
_INK, _LINE = "#010203", "#030201"  # stand in for a page's own colours


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
        metrics: keys to draw, or key -> axis title. Nothing is assumed about which values are better.
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
    titles = metrics if isinstance(metrics, Mapping) else {name: name for name in metrics}
    panels = {
        heading: lambda ax, metric=metric: draw_quality(ax, drawn, metric, floor, floor_label=floor_label)
        for metric, heading in titles.items()
    }
    _save_panels(panels, path, title)


def plot_frontier(
    sweep: Sequence[Row],
    path: str | Path,
    *,
    likelihood_key: str,
    entropy_key: str,
    title: str = "",
    floor: Mapping[str, Any] | None = None,
) -> None:
    """Likelihood against entropy along each sampler's temperatures: one panel for each number of calls.

    Args:
        sweep: rows with both keys, at several temperatures.
        path: where to save; the suffix chooses the format.
        likelihood_key, entropy_key: what to draw.
        title (`str`): over all panels.
        floor (*optional*): the metrics of real data, drawn as a star; compare samplers at its entropy.

    Raises:
        ValueError: if there is nothing to draw.
    """
    if not sweep:
        raise ValueError("`sweep` must not be empty.")
    panels = {
        f"{nfe} calls": lambda ax, nfe=nfe: draw_frontier(ax, sweep, nfe, likelihood_key, entropy_key, floor)
        for nfe in sorted({row["nfe"] for row in sweep})
    }
    _save_panels(panels, path, title)


def plot_accuracy(rows: Sequence[Row], curves: Mapping[str, Sequence[Row]], path: str | Path, title: str = "") -> None:
    """The share of right answers against mean network calls: one line for each sampler.

    Args:
        rows: judged rows with `right_share` and `mean_calls`, and the ends of their intervals.
        curves: name -> rows of samplers whose constant was swept, drawn in place of their readings in `rows`.
        path: where to save; the suffix chooses the format.
        title (`str`): over the panel.

    Raises:
        ValueError: if there is nothing to draw.
    """
    if not rows and not curves:
        raise ValueError("`rows` and `curves` must not both be empty.")
    _save_panels({"right answers": lambda ax: draw_accuracy(ax, rows, curves)}, path, title)


def draw_accuracy(ax: Any, rows: Sequence[Row], curves: Mapping[str, Sequence[Row]]) -> None:
    """One line for each sampler, with the interval of the share as a band."""
    every = [*rows, *({**row, "sampler": name} for name, curve in curves.items() for row in curve)]
    for name, style in styles(every).items():
        curve = [row for row in curves.get(name, ()) if row["read"]]
        own = curve or [row for row in rows if row["sampler"] == name]
        line = sorted(own, key=lambda row: row["mean_calls"])
        x, y, low, high = ([row[key] for row in line] for key in ("mean_calls", *with_ends("right_share")))
        ax.plot(x, y, label=name, clip_on=False, **style.line())
        ax.fill_between(x, low, high, color=style.colour, alpha=0.15, linewidth=0)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set(xlabel="mean network calls", ylabel="share of right answers", ylim=(0, 1))


def draw_quality(
    ax: Any, rows: Sequence[Row], metric: str, floor: Mapping[str, Any] | None = None, *, floor_label: str = ""
) -> None:
    """One line for each sampler, with its bootstrap interval as a band where the rows have one."""
    for name, style in styles(rows).items():
        chosen = sorted(
            (row for row in rows if row["sampler"] == name and row.get(metric) is not None), key=lambda row: row["nfe"]
        )
        x = [row["nfe"] for row in chosen]
        y = [row[metric] for row in chosen]
        ax.plot(x, y, label=name, clip_on=False, **style.line())
        if chosen and all(row.get(f"{metric}_low") is not None for row in chosen):
            low, high = ([row[metric + end] for row in chosen] for end in ("_low", "_high"))
            ax.fill_between(x, low, high, color=style.colour, alpha=0.15, linewidth=0)
    level = floor.get(metric) if floor else None
    if level is not None:
        ax.axhline(level, color=_ink(), linestyle="--", linewidth=1, label=floor_label)
    _scale_axes(ax, rows, metric, level)


def draw_frontier(
    ax: Any,
    sweep: Sequence[Row],
    nfe: int,
    likelihood_key: str,
    entropy_key: str,
    floor: Mapping[str, Any] | None = None,
) -> None:
    """Each sampler's likelihood against its entropy, from the lowest temperature to the highest."""
    for name, style in styles(sweep).items():
        chosen = sorted(
            (row for row in sweep if row["sampler"] == name and row["nfe"] == nfe), key=lambda row: row["temperature"]
        )
        x, y = ([row[key] for row in chosen] for key in (entropy_key, likelihood_key))
        ax.plot(x, y, label=name, **style.line())
    if floor:
        ax.axvline(floor[entropy_key], color=_ink(), linestyle="--", linewidth=1)
        ax.plot(
            [floor[entropy_key]], [floor[likelihood_key]], color=_ink(), marker="*", markersize=11, linestyle="none",
            label=floor["sampler"],
        )  # fmt: skip
    ax.set(xlabel="entropy (nats)", ylabel="negative log-likelihood (nats)")


@dataclass(frozen=True)
class Style:
    """How a sampler is drawn: colour and marker by `number` (1 to 8), hollow and dashed from the second `round` on."""

    number: int
    round: int

    @property
    def colour(self) -> str:
        return COLOURS[self.number - 1]

    def line(self) -> dict[str, Any]:
        """Keyword arguments of matplotlib's `plot`."""
        dashes, filled = ("-", "--", ":")[min(self.round, 3) - 1], self.round != 2
        look = {"color": self.colour, "marker": MARKERS[self.number - 1], "markersize": 5, "linestyle": dashes}
        return look | ({} if filled else {"markerfacecolor": "none"})


def styles(rows: Sequence[Row]) -> dict[str, Style]:
    """Each sampler's style, in order of first appearance: the same in every chart."""
    names = dict.fromkeys(row["sampler"] for row in rows)
    return {name: Style(i % len(COLOURS) + 1, i // len(COLOURS) + 1) for i, name in enumerate(names)}


def svg_chart(draw: Callable[[Any], None], label: str) -> str:
    """A chart as an `<svg>` element for a page: no external name, and colours that the page sets.

    The page's CSS has `--series-1` to `--series-8`, `--line`, and text in `currentColor`.

    Args:
        draw: draws on axes.
        label (`str`): what is read aloud.
    """
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    settings: Any = dict.fromkeys(inked, _INK) | {"grid.color": _LINE, "font.family": "DejaVu Sans"}
    settings |= {"svg.fonttype": "none", "svg.hashsalt": label}
    with default_style(settings), io.StringIO() as file:
        figure = new_figure(figsize=(4.7, 3.3))
        ax = figure.subplots()
        draw(ax)
        style_axes(ax)
        figure.patch.set_visible(False)
        ax.patch.set_visible(False)
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        return _for_a_page(file.getvalue(), label)


def _save_panels(panels: Mapping[str, Callable[[Any], None]], path: str | Path, title: str) -> None:
    with default_style():
        width, height = 4.2 * len(panels) + 0.6, 4.4
        figure = new_figure(figsize=(width, height))
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, (heading, draw) in zip(axes, panels.items(), strict=True):
            draw(ax)
            style_axes(ax, heading)
        handles, names = max((ax.get_legend_handles_labels() for ax in axes), key=lambda pair: len(pair[1]))
        columns = _legend_columns(names, width)
        figure.set_figheight(height + _LINE_INCHES * max(0, -(-len(names) // columns) - 2))
        figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)
        save_figure(figure, path, title)


def _legend_columns(names: Sequence[str], width: float) -> int:
    """How many names, each with its line, fit side by side into so many inches; at most 4."""
    longest = max(map(len, names), default=0) + _HANDLE_CHARACTERS
    return max(1, min(len(names), 4, int(width * _CHARACTERS_PER_INCH / longest)))


def _ink() -> str:
    import matplotlib

    return matplotlib.rcParams["text.color"]


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
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if _few_decades(positive) else "")


def _few_decades(values: Sequence[float]) -> bool:
    """Whether an axis would have hardly any labels without the minor ones."""
    return len(values) > 0 and max(values) < 8 * min(values)


def _for_a_page(svg: str, label: str) -> str:
    """The bare element, without prologue, metadata, namespaces, or names that could occur twice on the page."""
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    view_box = re.findall(r'viewBox="([^"]*)"', svg)[0]
    svg = re.sub(r"^<svg [^>]*>", f'<svg viewBox="{view_box}" role="img" aria-label="{html.escape(label)}">', svg)
    colours = {_INK: "currentColor", _LINE: "var(--line)"}
    colours |= {colour: f"var(--series-{i})" for i, colour in enumerate(COLOURS, 1)}
    for colour, variable in colours.items():
        svg = svg.replace(colour.lower(), variable)
    return svg
