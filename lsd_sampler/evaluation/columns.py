"""Headings and meanings of the numbers in tables, pages and charts, each defined once, where it is computed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Column:
    """A number of a row, as tables show it.

    Attributes:
        key: the key under which rows hold it.
        heading: the heading of its column and of its chart.
        meaning: a sentence or two for the report's glossary; a column without one is not in the glossary.
        digits: decimals on the HTML page.
    """

    key: str
    heading: str
    meaning: str = ""
    digits: int = field(default=4, kw_only=True)


@dataclass(frozen=True)
class Metric(Column):
    """A number that a metric set computes.

    Attributes:
        lower_is_better: whether the least value is the best (True) or the largest (False); None where the value
            should equal that of real data.
        interval: whether rows hold the ends of its bootstrap interval, as `KEY_low` and `KEY_high`.
        short: what the headings of these ends begin with; default: `heading`.
    """

    lower_is_better: bool | None = None
    interval: bool = field(default=False, kw_only=True)
    short: str | None = field(default=None, kw_only=True)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Its own column, and those of the ends of its interval."""
        return (self, *(self._end(*end) for end in _ENDS)) if self.interval else (self,)

    def _end(self, name: str, meaning: str) -> Column:
        short = self.heading if self.short is None else self.short
        return Column(f"{self.key}_{name}", f"{short} {name}".strip(), meaning, digits=self.digits)


_ENDS = (("low", "Lower end of its bootstrap interval."), ("high", "Upper end of it."))

CIRCUMSTANCES = (
    Column("sampler", "sampler"),
    Column("nfe", "NFE", "Number of calls of the network for a sample."),
    Column(
        "temperature",
        "temp.",
        "Global temperature of the token draws: each sampler's own best, chosen on other samples.",
        digits=2,
    ),
    Column(
        "guidance_scale",
        "guidance",
        "Strength of classifier-free guidance, 0 for none: each sampler's own best, chosen on other samples.",
        digits=2,
    ),
    Column("length", "length"),
    Column("seconds", "seconds"),
    Column("network_calls", "calls", "Calls really made for a sample, on average.", digits=1),
)
"""What a row holds besides its metrics."""


def with_ends(*keys: str) -> tuple[str, ...]:
    """Each key, followed by those of the ends of its interval."""
    return tuple(key + ending for key in keys for ending in ("", "_low", "_high"))


def present(columns: Iterable[Column], rows: Iterable[Mapping[str, Any]]) -> list[Column]:
    """Those columns for which some row has a value."""
    held = {key for row in rows for key, value in row.items() if value is not None}
    return [column for column in columns if column.key in held]


def headings(columns: Iterable[Column]) -> dict[str, str]:
    """Key -> heading."""
    return {column.key: column.heading for column in columns}
