"""The headline: how many calls the base solver needs for the quality that a sampler reaches with few calls."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .bootstrap import centred
from .rows import Row


_NO_INTERVAL = "too few samples for an interval"


@dataclass(frozen=True)
class MatchedCalls:
    """Calls at matched quality.

    Attributes:
        sampler, nfe: which sampler, at how many calls.
        base: the base solver's name.
        value: the sampler's distance from real data.
        calls: the number of calls at which the base solver reaches `value`, interpolated in log NFE; `inf` if it does
            not reach it within the calls that were tried, `fewest` if it already does with the fewest.
        low, high: bootstrap interval of `calls`, with the same two ends.
        fewest, most: the smallest and largest number of calls of the base solver that were tried.
        length: tokens of a sample: no number of calls is larger; None where it is not known.
        level: whether the sampler's interval reaches down to the interval of real data of the same size; None if
            there is no such interval.
    """

    sampler: str
    nfe: int
    base: str
    value: float
    calls: float
    low: float
    high: float
    fewest: int
    most: int
    level: bool | None = None
    length: int | None = None

    @property
    def saved(self) -> float:
        """How many times fewer calls the sampler makes; `inf` where the base solver does not get there."""
        return self.calls / self.nfe

    @property
    def is_exhausted(self) -> bool:
        """Whether the base solver was tried at one token a call."""
        return self.length is not None and self.most >= self.length

    def headline(self) -> str:
        """How many times fewer calls, with the interval, in a few words."""
        if self.low <= self.nfe:  # not by more than chance
            return "no calls saved"
        if np.isfinite(self.calls):
            high = f"to {self.high / self.nfe:.1f}" if np.isfinite(self.high) else "or more"
            return f"{self.saved:.1f}× fewer calls ({self.low / self.nfe:.1f} {high})"
        if self.is_exhausted:
            return "not even at one token a call"
        if self.most > self.nfe:
            return f"> {self.most / self.nfe:.1f}× fewer calls"
        return f"not within {self.most} calls"

    def sentence(self) -> str:
        """What was found, in one sentence."""
        ours = f"{self.sampler} has at {self.nfe} calls"
        if np.isinf(self.calls):
            within = f"within {self.most} calls"
            within = f"even at one token a call, {self.most} calls," if self.is_exhausted else within
            return f"{self.base} does not reach {within} what {ours}{self._at_least()}."
        if self.calls <= self.fewest:
            return f"{self.base} reaches with {self.fewest} calls or fewer what {ours}."
        interval = f"{self._number(self.low)} to {self._number(self.high)}"
        interval = _NO_INTERVAL if self._covers_all() else interval
        return f"{self.base} needs {self.calls:.1f} calls ({interval}) for what {ours}."

    def _covers_all(self) -> bool:
        return self.low <= self.fewest and bool(np.isinf(self.high))

    def _at_least(self) -> str:
        if self._covers_all():
            return f" ({_NO_INTERVAL})"
        return f" (interval: {self._number(self.low)} calls or more)" if np.isfinite(self.low) else ""

    def _number(self, calls: float) -> str:
        if np.isinf(calls):
            return f"more than {self.most}"
        return f"{self.fewest} or fewer" if calls <= self.fewest else f"{calls:.1f}"


def calls_to_reach(nfe: Sequence[int], values: Sequence[float] | np.ndarray, target: float) -> float:
    """The number of calls at which a curve first falls to `target`, by linear interpolation in log NFE.

    Args:
        nfe: numbers of calls, increasing.
        values: the distance at each; lower is better.

    Returns:
        `nfe[0]` if it is that good from the start, `inf` if it never is: nothing is extrapolated.
    """
    for i, value in enumerate(values):
        if value <= target:
            if i == 0:
                return float(nfe[0])
            share = (values[i - 1] - target) / (values[i - 1] - value)
            return float(np.exp(np.log(nfe[i - 1]) + share * np.log(nfe[i] / nfe[i - 1])))
    return float("inf")


def matched_calls(
    rows: Sequence[Row],
    base: str,
    key: str,
    *,
    nfe: int = 8,
    floor: Row | None = None,
    confidence: float = 0.95,
) -> list[MatchedCalls]:
    """For each other sampler, the calls that `base` needs to be as good as that sampler at `nfe` calls.

    Resamples are drawn for all rows alike, so the noise that samplers share (common random numbers) cancels.

    Args:
        rows: judged rows, with `KEY_replicates`.
        base (`str`): the base solver's name.
        key (`str`): the distance, lower is better.
        nfe (`int`): at how many calls the others are taken.
        floor (*optional*): real data of the same size, with the interval of `key`.
        confidence (`float`): of the intervals.

    Returns:
        One for each; none if `base` was tried at less than two numbers of calls, or the metric has no replicates.
    """
    curve = sorted((row for row in rows if row["sampler"] == base), key=lambda row: row["nfe"])
    if len(curve) < 2 or not _has_replicates(rows, key):
        return []
    steps = [row["nfe"] for row in curve]
    replicates = np.stack([_centred(row, key) for row in curve], axis=1)
    found = []
    for row in rows:
        if row["sampler"] == base or row["nfe"] != nfe:
            continue
        again = [calls_to_reach(steps, v, t) for v, t in zip(replicates, _centred(row, key), strict=True)]
        tail = (1 - confidence) / 2
        low, high = np.quantile(again, [tail, 1 - tail], method="inverted_cdf")  # interpolates no infinity
        calls = calls_to_reach(steps, [base_row[key] for base_row in curve], row[key])
        ends_known = floor is not None and f"{key}_low" in row and f"{key}_high" in floor
        level = row[f"{key}_low"] <= floor[f"{key}_high"] if floor and ends_known else None
        ends = (float(low), float(high), steps[0], steps[-1])
        length = curve[0].get("length")
        found.append(MatchedCalls(row["sampler"], nfe, base, row[key], calls, *ends, level, length))
    return found


def _has_replicates(rows: Sequence[Row], key: str) -> bool:
    return all(f"{key}_replicates" in row for row in rows)


def _centred(row: Row, key: str) -> np.ndarray:
    return centred(row[key], np.array(row[f"{key}_replicates"], dtype=float))


@dataclass(frozen=True)
class Winner:
    """The least distance at one number of calls, and by how much it beats the next.

    Attributes:
        nfe: number of calls.
        sampler, value: the best, and its distance.
        second: the next best; None where there is no other.
        lead, low, high: how much larger the second's distance is, and the bootstrap interval of that; None where the
            metric has no replicates.
    """

    nfe: int
    sampler: str
    value: float
    second: str | None = None
    lead: float = 0.0
    low: float | None = 0.0
    high: float | None = 0.0

    def sentence(self, words: tuple[str, str] = ("is closest", "is further away")) -> str:
        """What was found, in one sentence; `words` as `verdict_words` of a metric set."""
        best, worse = words
        first = f"At {self.nfe} calls {self.sampler} {best}"
        if self.second is None:
            return f"{first} ({self.value:.4f})."
        if self.low is None:
            chance = f"nothing says if by chance, as {self.second} or it has no replicates"
            return f"{first} ({self.value:.4f}), by {self.lead:.4f} ({chance})."
        sure = "by more than chance" if self.low > 0 else "but not by more than chance"
        lead = f"{self.lead:.4f} ({self.low:.4f} to {self.high:.4f})"
        return f"{first} ({self.value:.4f}), {sure}: {self.second} {worse} by {lead}."


def winners(rows: Sequence[Row], key: str, *, confidence: float = 0.95) -> list[Winner]:
    """The best sampler at each number of calls, with the paired bootstrap interval of its lead over the next.

    Args:
        rows: judged rows, with `KEY_replicates`.
        key (`str`): the distance, lower is better.
        confidence (`float`): of the intervals.
    """
    found = []
    for nfe in sorted({row["nfe"] for row in rows}):
        at_nfe = [row for row in rows if row["nfe"] == nfe]
        best = min(at_nfe, key=lambda row: row[key])
        others = leads(at_nfe, best["sampler"], key, confidence=confidence)
        found.append(others[0] if others else Winner(nfe, best["sampler"], best[key]))
    return found


def leads(rows: Sequence[Row], sampler: str, key: str, *, confidence: float = 0.95) -> list[Winner]:
    """How much further away every other sampler is than a given one, at each number of calls; the closest first.

    Resamples are drawn for all rows alike, so the noise that samplers share (common random numbers) cancels. A lead
    may be negative.

    Args:
        rows: judged rows, with `KEY_replicates`.
        sampler (`str`): whose leads.
        key (`str`): the distance, lower is better.
        confidence (`float`): of the intervals, each for itself.
    """
    found, tail = [], (1 - confidence) / 2
    for best in sorted((row for row in rows if row["sampler"] == sampler), key=lambda row: row["nfe"]):
        others = [row for row in rows if row["nfe"] == best["nfe"] and row["sampler"] != sampler]
        for row in sorted(others, key=lambda row: row[key]):
            ends: list[float | None] = [None, None]
            if _has_replicates([row, best], key):
                ends = np.quantile(_centred(row, key) - _centred(best, key), [tail, 1 - tail]).tolist()
            found.append(Winner(best["nfe"], sampler, best[key], row["sampler"], row[key] - best[key], *ends))
    return found
