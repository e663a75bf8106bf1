"""The findings of an evaluation, assembled once for the terminal, for programs and for the HTML page."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .columns import Column, headings, present, with_ends
from .comparison import Comparison
from .frontier import Reading, read_frontier
from .metric_sets import MetricSet, TaskMetrics, columns_of
from .metric_sets.metric_set import MEAN_CALLS
from .parallelism import aup_of_samplers
from .rows import Row, json_line
from .tables import format_table
from .verdict import MatchedCalls, Winner, matched_calls, winners


@dataclass(frozen=True)
class Report:
    """An evaluation, ready to be shown.

    Attributes:
        title: what was evaluated.
        comparison: the rows.
        metrics: what was computed, by which distance samplers are compared, and which numbers are shown.
        base: the base solver's name, or None.
        matched: the calls that it needs for what the others have at a few.
        ours: the samplers that the headline is about; empty for all others.
        winners: the best sampler at each number of calls.
        readings: the frontier, read off at the entropy of real data.
        protocol: how it was done, as name -> sentence.
        answers: AUP of each sampler, where answers were judged; see [`aup_of_samplers`].
    """

    title: str
    comparison: Comparison
    metrics: MetricSet
    base: str | None = None
    matched: list[MatchedCalls] = field(default_factory=list)
    ours: list[str] = field(default_factory=list)
    winners: list[Winner] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    protocol: dict[str, str] = field(default_factory=dict)
    answers: list[Row] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        """The rows of the tables: judged samplers, then real data."""
        return [*self.comparison.rows, *([self.comparison.floor] if self.comparison.floor else [])]

    @property
    def headline(self) -> MatchedCalls | None:
        """The largest saving."""
        found = [entry for entry in self.matched if not self.ours or entry.sampler in self.ours]
        return max(found, key=lambda entry: (entry.saved, -entry.value), default=None)

    @property
    def drawn(self) -> list[Column]:
        """The metrics of the charts."""
        return self._present(self.metrics.layout().drawn)

    def tables(self) -> list[list[Column]]:
        """The columns of each table: the verdict's, and further metrics."""
        layout = self.metrics.layout()
        return [self._present(("sampler", "nfe", *keys)) for keys in (layout.table, layout.details)]

    def _present(self, keys: Iterable[str]) -> list[Column]:
        known = columns_of(self.metrics)
        return present([known[key] for key in keys], self.rows)

    def sentences(self) -> list[str]:
        """The verdict in words, the headline first, and what weakens it."""
        farther = [found for found in self.matched if found.calls <= found.fewest]
        closer = [found.sentence() for found in self.matched if found not in farther]
        best = [found.sentence(self.metrics.verdict_words) for found in self.winners]
        notes = self.comparison.notes
        return [*closer, *_no_calls_saved(farther), *best, *self._edges(), *self._left_out(), *notes]

    def _edges(self) -> list[str]:
        """Samplers whose best temperature or guidance may lie beyond those that were tried."""
        found = []
        for key, what in (("temperature", "temperatures"), ("guidance_scale", "guidance scales")):
            tried = {row[key] for row in self.comparison.sweep if row.get(key) is not None}
            # one value alone has no beyond, and nothing is below 0
            ends = {min(tried), max(tried)} - {0} if len(tried) > 1 else set()
            names = dict.fromkeys(row["sampler"] for row in self.comparison.judged if row.get(key) in ends)
            if names:
                found.append(f"At the edge of the {what} tried, so perhaps not yet at their best: {', '.join(names)}.")
        return found

    def _left_out(self) -> list[str]:
        """Samplers that lack some rows."""
        lacking = self.comparison.left_out.items()
        return [f"{name} has no numbers for {', '.join(map(str, steps))} calls: left out." for name, steps in lacking]

    @property
    def curve_rows(self) -> list[Row]:
        """The samplers whose constant was swept, each at every constant."""
        return [row for curve in self.comparison.curves.values() for row in curve]

    @property
    def curve_columns(self) -> list[Column]:
        """The columns of their table."""
        known = columns_of(self.metrics) | {column.key: column for column in MEAN_CALLS.columns}
        verdict = "right_share" if isinstance(self.metrics, TaskMetrics) else self.metrics.verdict_key
        keys = (*_SETTINGS, *with_ends("mean_calls", verdict), "tokens_per_call")
        return present([*(known[key] for key in keys if key in known), Column("read", "read off")], self.curve_rows)

    def reading_rows(self) -> list[Row]:
        """The frontier's readings as rows of a table."""
        return [asdict(reading) | {"note": reading.note or None} for reading in self.readings]


def _no_calls_saved(farther: Sequence[MatchedCalls]) -> list[str]:
    """One sentence for all samplers that the base solver equals with its fewest calls."""
    if len(farther) < 2:
        return [found.sentence() for found in farther]
    first, names = farther[0], ", ".join(found.sampler for found in farther)
    return [f"{first.base} reaches with {first.fewest} calls or fewer what these have at {first.nfe}: {names}."]


READING_COLUMNS = (
    Column("sampler", "sampler"),
    Column("nfe", "NFE"),
    Column("entropy", "at entropy"),
    Column("likelihood", "NLL there"),
    Column("low", "low"),
    Column("high", "high"),
    Column("temperature", "temp.", digits=2),
    Column("note", "note"),
)


_SETTINGS = ("sampler", "temperature", "guidance_scale")
AUP_COLUMNS = (
    Column("sampler", "sampler"),
    Column("points", "points"),
    Column("from_tokens", "from tokens a call", digits=2),
    Column("aup", "AUP", digits=1),
)


def make_report(
    title: str,
    comparison: Comparison,
    metrics: MetricSet,
    *,
    base: str | None = None,
    headline_nfe: int = 8,
    ours: Sequence[str] = (),
    protocol: dict[str, str] | None = None,
    confidence: float = 0.95,
) -> Report:
    """Draws the conclusions from a comparison.

    Args:
        title (`str`): what was evaluated.
        comparison ([`Comparison`]), metrics (`MetricSet`): the rows, and what made them.
        base (`str`, *optional*): the base solver's name, for "calls saved".
        headline_nfe (`int`): at how many calls the other samplers are taken for that.
        ours (*optional*): the samplers that the headline is about; default: all but the base solver.
        protocol (*optional*): how it was done.
        confidence (`float`): of all intervals.
    """
    key, floor = metrics.verdict_key, comparison.floor
    likelihood_key, entropy_key = metrics.likelihood_key, metrics.entropy_key
    matched = []
    if base is not None:
        options: dict[str, Any] = {"nfe": headline_nfe, "floor": floor, "confidence": confidence}
        matched = matched_calls(comparison.rows, base, key, **options)
        matched.sort(key=lambda found: found.value)
    readings: list[Reading] = []
    if (
        likelihood_key
        and entropy_key
        and floor
        and all(f"{likelihood_key}_replicates" in row for row in comparison.sweep)
    ):
        options = {"entropy_key": entropy_key, "likelihood_key": likelihood_key, "confidence": confidence}
        readings = read_frontier(comparison.sweep, floor[entropy_key], **options)
    best = winners(comparison.judged, key, confidence=confidence)
    answers = aup_of_samplers(comparison.rows, comparison.curves) if isinstance(metrics, TaskMetrics) else []
    return Report(title, comparison, metrics, base, matched, list(ours), best, readings, protocol or {}, answers)


def as_text(report: Report, digits: int = 4) -> str:
    """Tables and verdict for a terminal."""
    parts = [format_table(report.rows, headings(columns), digits=digits) for columns in report.tables()]
    if report.readings and report.metrics.likelihood_key:
        likelihood = columns_of(report.metrics)[report.metrics.likelihood_key].heading
        heading = f"Frontier: {likelihood} at the entropy of real data"
        parts.append(f"{heading}\n{format_table(report.reading_rows(), headings(READING_COLUMNS), digits=digits)}")
    if report.curve_rows:
        table = format_table(report.curve_rows, headings(report.curve_columns), digits=digits)
        parts.append(f"Swept constants, each until every sample is complete\n{table}")
    if report.answers:
        table = format_table(report.answers, headings(AUP_COLUMNS), digits=2)
        parts.append(f"AUP: area under accuracy in percent against tokens a call\n{table}")
    best = report.headline
    headline = [] if best is None else [f"{best.sampler} at {best.nfe} calls: {best.headline()}."]
    return "\n\n".join([*parts, "\n".join([*headline, *report.sentences()])]) + "\n"


def as_json(report: Report) -> str:
    """Everything but texts and replicates, as one JSON object."""
    kept: dict[str, Any] = {
        "title": report.title,
        "verdict": report.metrics.verdict_key,
        "base": report.base,
        "protocol": report.protocol,
        "rows": _numbers(report.comparison.rows),
        "floor": next(iter(_numbers([report.comparison.floor] if report.comparison.floor else [])), None),
        "headline": None if report.headline is None else report.headline.headline(),
        "calls_at_matched_quality": [json.loads(json_line(asdict(found))) for found in report.matched],
        "winners": [asdict(found) for found in report.winners],
        "frontier": [asdict(reading) for reading in report.readings],
        "curves": _numbers(report.curve_rows),
        "aup": report.answers,
        "sentences": report.sentences(),
    }
    return json.dumps(kept, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def _numbers(rows: Sequence[Row]) -> list[Row]:
    return [json.loads(json_line({key: row[key] for key in row if not isinstance(row[key], list)})) for row in rows]
