"""The report as one self-contained HTML page: no scripts, no network, light and dark mode, for phone and desktop."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..support.afterwards import as_warning, lacks_matplotlib
from .columns import Column, Metric
from .metric_sets import columns_of
from .plots import draw_accuracy, draw_frontier, draw_quality, styles, svg_chart
from .report import AUP_COLUMNS, READING_COLUMNS, Report
from .rows import Row, check_columns
from .tables import cell


def render(report: Report) -> str:
    """The page.

    Raises:
        ImportError: without Jinja2.
        ValueError: if a table would show a likelihood without an entropy.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise ImportError("The HTML report needs Jinja2: `pip install lsd_sampler[eval]`.") from error

    environment = Environment(
        loader=PackageLoader("lsd_sampler.evaluation"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    first, second = (_table(report.rows, columns) for columns in report.tables())
    return environment.get_template("report.html").render(
        title=report.title,
        headline=_headline(report),
        sentences=report.sentences(),
        base=report.base,
        marks={name: f"s{style.number} r{style.round}" for name, style in styles(report.comparison.judged).items()},
        floor=report.comparison.floor,
        charts=_quality_charts(report),
        all_lower=_all_lower(report),
        table=first,
        details=second,
        frontier=_frontier(report),
        answers=_answers(report),
        swept=_table(report.curve_rows, report.curve_columns) if report.curve_rows else None,
        samples=_samples(report),
        glossary=_glossary(report),
        protocol=report.protocol,
    )


def _headline(report: Report) -> dict[str, str] | None:
    """The largest saving, in large print."""
    best = report.headline
    if best is None:
        return None
    level = _level(best.level) if best.low > best.nfe else ""
    return {"number": best.headline(), "sentence": best.sentence(), "level": level}


def _level(level: bool | None) -> str:
    if level is None:
        return ""
    return f"Real data of the same size is {'no closer than chance allows' if level else 'closer'}."


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> dict[str, Any]:
    """Headings and cells; the best value of a metric among the samplers of one number of calls stands out."""
    check_columns(column.key for column in columns)
    for row in rows:
        check_columns(column.key for column in columns if row.get(column.key) is not None)
    best = {column.key: _best(rows, column) for column in columns}
    lines = [
        {
            "sampler": row["sampler"],
            "floor": row.get("nfe") is None,
            "cells": [
                {
                    "text": cell(value := row.get(column.key), column.digits),
                    "best": value is not None and value == best[column.key].get(row.get("nfe")),
                    "wide": column.key in ("sampler", "note"),
                }
                for column in columns
            ],
        }
        for row in rows
    ]
    return {"headings": [column.heading for column in columns], "rows": lines}


def _best(rows: Sequence[Mapping[str, Any]], column: Column) -> dict[int | None, float]:
    """Number of calls -> the best value among several samplers, for metrics whose least or largest value is best."""
    if not isinstance(column, Metric) or column.lower_is_better is None:
        return {}
    values: dict[int | None, list[float]] = {}
    for row in rows:
        if row.get("nfe") is not None and row.get(column.key) is not None:
            values.setdefault(row["nfe"], []).append(row[column.key])
    choose = min if column.lower_is_better else max
    return {nfe: choose(found) for nfe, found in values.items() if len(found) > 1}


def _all_lower(report: Report) -> bool:
    """Whether the least value is the best in every chart."""
    return all(isinstance(column, Metric) and column.lower_is_better for column in report.drawn)


def _caption(column: Column) -> str:
    """What a chart shows, and where good values are."""
    lower = column.lower_is_better if isinstance(column, Metric) else None
    said = {True: "Lower is better.", False: "Higher is better.", None: ""}[lower]
    return column.meaning if said in column.meaning else f"{column.meaning} {said}".strip()


def _quality_charts(report: Report) -> list[dict[str, str]]:
    rows, floor = report.comparison.rows, report.comparison.floor
    charts = []
    for column in report.drawn:
        svg = _chart(lambda ax, key=column.key: draw_quality(ax, rows, key, floor), f"{column.heading} against calls")
        meaning = column.meaning if _all_lower(report) else _caption(column)
        charts.append({"title": column.heading, "meaning": meaning, "svg": svg})
    return [chart for chart in charts if chart["svg"]]


def _frontier(report: Report) -> dict[str, Any] | None:
    likelihood_key, entropy_key = report.metrics.likelihood_key, report.metrics.entropy_key
    if not report.readings or likelihood_key is None or entropy_key is None:
        return None
    sweep, floor, keys = report.comparison.sweep, report.comparison.floor, (likelihood_key, entropy_key)
    charts = []
    for nfe in sorted({row["nfe"] for row in sweep}):
        svg = _chart(lambda ax, nfe=nfe: draw_frontier(ax, sweep, nfe, *keys, floor), f"frontier at {nfe} calls")
        charts.append({"title": f"{nfe} calls", "meaning": "", "svg": svg})
    names = [columns_of(report.metrics)[key].heading for key in keys]
    table = _table(report.reading_rows(), READING_COLUMNS)
    return {"charts": [chart for chart in charts if chart["svg"]], "table": table, "names": names}


def _answers(report: Report) -> dict[str, Any] | None:
    """Right answers against mean calls, and AUP."""
    if not report.answers:
        return None
    rows, curves = report.comparison.rows, report.comparison.curves
    svg = _chart(lambda ax: draw_accuracy(ax, rows, curves), "right answers against mean calls")
    chart = {"title": "right answers", "meaning": "All swept constants are drawn.", "svg": svg}
    return {"charts": [chart] if svg else [], "aup": _table(report.answers, AUP_COLUMNS)}


def _chart(draw: Any, label: str) -> str:
    """The chart, or an empty text if it cannot be drawn. The plots already warn that matplotlib is missing."""
    with as_warning(f"No chart of {label} in report.html"):
        try:
            return svg_chart(draw, label)
        except ImportError as error:
            if not lacks_matplotlib(error):
                raise
    return ""


def _samples(report: Report) -> list[dict[str, Any]]:
    """A few texts of each sampler at the headline's number of calls, and of real data."""
    with_texts = [row for row in report.rows if row.get("texts")]
    steps = sorted({row["nfe"] for row in with_texts if row["nfe"] is not None})
    if not steps:
        return []
    nfe = report.matched[0].nfe if report.matched and report.matched[0].nfe in steps else steps[0]
    return [_card(row) for row in with_texts if row["nfe"] in (nfe, None)]


def _card(row: Row) -> dict[str, Any]:
    calls = "" if row["nfe"] is None else f"{row['nfe']} calls, temperature {row['temperature']:g}"
    return {"name": row["sampler"], "calls": calls, "texts": row["texts"]}


def _glossary(report: Report) -> list[tuple[str, str]]:
    shown = dict.fromkeys(column for columns in report.tables() for column in columns)
    return [(column.heading, column.meaning) for column in shown if column.meaning]
