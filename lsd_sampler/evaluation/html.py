"""The report as one HTML page that needs nothing else: no script, no network, light and dark, phone and desk."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..support.afterwards import as_warning, lacks_matplotlib
from .glossary import metric
from .plots import draw_frontier, draw_quality, styles, svg_chart
from .report import READING_COLUMNS, Report
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
        table=first,
        details=second,
        frontier=_frontier(report),
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


def _table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> dict[str, Any]:
    """Headings and cells; the least value of a distance among the samplers of one number of calls stands out."""
    check_columns(columns)
    for row in rows:
        check_columns(key for key in columns if row.get(key) is not None)
    best = {key: _least(rows, key) for key in columns if key in _DISTANCES}
    lines = [
        {
            "sampler": row["sampler"],
            "floor": row.get("nfe") is None,
            "cells": [
                {
                    "text": cell(row.get(key), _DIGITS.get(key, 4)),
                    "best": key in best
                    and row.get(key) is not None
                    and row.get(key) == best[key].get(row.get("nfe") or 0),
                    "wide": key in ("sampler", "note"),
                }
                for key in columns
            ],
        }
        for row in rows
    ]
    return {"headings": list(columns.values()), "rows": lines}


_DIGITS = {"temperature": 2, "network_calls": 1, "perplexity": 1, "word_perplexity": 1}
_DISTANCES = (
    "reverse_kl", "forbidden_share", "forbidden_samples", "bigram_tv", "js_char_3gram", "js_char_4gram",
    "js_char_sum", "js_token_1gram", "js_token_2gram", "js_token_sum", "energy_distance",
)  # fmt: skip


def _least(rows: Sequence[Mapping[str, Any]], key: str) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for row in rows:
        if row.get("nfe") is not None and row.get(key) is not None:
            values.setdefault(row["nfe"], []).append(row[key])
    return {nfe: min(found) for nfe, found in values.items() if len(found) > 1}


def _quality_charts(report: Report) -> list[dict[str, str]]:
    rows, floor = report.comparison.rows, report.comparison.floor
    charts = []
    for key, heading in report.drawn.items():
        svg = _chart(lambda ax, key=key: draw_quality(ax, rows, key, floor), f"{heading} against calls")
        charts.append({"title": heading, "meaning": metric(key).meaning, "svg": svg})
    return [chart for chart in charts if chart["svg"]]


def _frontier(report: Report) -> dict[str, Any] | None:
    if not report.readings or report.likelihood_key is None:
        return None
    sweep, floor = report.comparison.sweep, report.comparison.floor
    keys = (report.likelihood_key, report.entropy_key)
    charts = []
    for nfe in sorted({row["nfe"] for row in sweep}):
        svg = _chart(lambda ax, nfe=nfe: draw_frontier(ax, sweep, nfe, *keys, floor), f"frontier at {nfe} calls")
        charts.append({"title": f"{nfe} calls", "meaning": "", "svg": svg})
    names = [metric(key).heading for key in keys]
    table = _table(report.reading_rows(), READING_COLUMNS)
    return {"charts": [chart for chart in charts if chart["svg"]], "table": table, "names": names}


def _chart(draw: Any, label: str) -> str:
    """Nothing where it cannot be drawn; that matplotlib is missing is said with the plots."""
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
    shown = dict.fromkeys(key for columns in report.tables() for key in columns)
    return [(metric(key).heading, metric(key).meaning) for key in shown if metric(key).meaning]
