"""Accuracy, or a distance, against network calls: intervals of shares, samplers read off at equal mean calls, and one
number for both.

A sampler whose calls vary with its constant (a threshold, an entropy bound) is measured at several constants. These
are points of a curve, which is read off at the mean calls of the others.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import torch

from .bootstrap import centred, kept_replicates, with_interval
from .columns import with_ends
from .rows import Row


ALPHA = 3.0
"""How strongly [`aup`] weighs a loss of accuracy."""
MOST_LOST = 5.0
"""Points of accuracy below the first that a point of [`aup`] may have."""


def wilson(right: torch.Tensor, group: torch.Tensor | None = None, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (https://doi.org/10.1080/01621459.1927.10502953).

    Answers to one item are not independent. Where items have several, the number of answers is replaced by the
    effective one, `p (1 - p) / var`, with the variance of the share between items; at least the number of items.

    Args:
        right (`torch.Tensor` of shape `(num_samples,)`): 1 for right, 0 for wrong.
        group (`torch.LongTensor` of that shape, *optional*): the item of each; default: all differ.
        confidence (`float`): of the interval.

    Raises:
        ValueError: if there is no sample.
    """
    n = float(len(right))
    if not n:
        raise ValueError("`right` must not be empty.")
    p = float(right.double().mean())
    if group is not None:
        n = _effective_number(right.double(), group, p)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle, width = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((middle + sign * width) / (1 + z * z / n) for sign in (-1, 1))
    # where none or all are right, that end is exact
    return (0.0 if p == 0 else low), (1.0 if p == 1 else high)


def _effective_number(right_N: torch.Tensor, group_N: torch.Tensor, p: float) -> float:
    _, place_N, counts_G = group_N.unique(return_inverse=True, return_counts=True)
    groups, n = len(counts_G), len(right_N)
    if groups == n or groups < 2:
        return float(groups)
    off_G = torch.zeros(groups, dtype=torch.float64).index_add_(0, place_N, right_N - p)
    variance = float(off_G.square().sum()) * groups / (groups - 1) / n**2
    if variance == 0:
        return float(n if 0 < p < 1 else groups)
    return min(float(n), max(float(groups), p * (1 - p) / variance))


def read_at_calls(
    curve: Sequence[Row],
    name: str,
    calls: Sequence[float],
    *,
    key: str = "wrong_share",
    confidence: float = 0.95,
) -> tuple[list[Row], list[str]]:
    """A swept sampler at given mean calls, by linear interpolation in the logarithm of the mean calls.

    The interval is that of resamples of both the calls and the verdict, or the interpolated one of the rows where that
    reaches further: resamples of rows without a wrong answer have none. Nothing is extrapolated: where even the most
    calls of the curve are fewer, the reading is its last point, with the calls that it took.

    Args:
        curve: rows of one sampler with different constants, with `mean_calls` and the verdict and their replicates;
            none is dominated by another (see [`undominated`]).
        name (`str`): of the sampler.
        calls: where to read.
        key (`str`): the verdict, lower is better; that of tasks brings the share of right answers along.
        confidence (`float`): of the intervals.

    Returns:
        a row for each number of calls that is not below the curve, as that of a sampler with at most so many calls,
        and a sentence about the others.
    """
    rows = sorted(curve, key=lambda row: row["mean_calls"])
    least = rows[0]["mean_calls"]
    found = [_read(rows, name, M, key, confidence) for M in calls if M >= least]
    missed = ", ".join(f"{M:g}" for M in calls if M < least)
    note = f"{name} takes {least:.1f} calls or more on average: it is not read off at {missed}."
    return found, [note] if missed else []


def undominated(rows: Sequence[Row], key: str = "wrong_share") -> list[Row]:
    """The rows to which no other is as good with as few mean calls. A careless constant may take more calls, because
    wrong answers contradict each other.
    """
    kept: list[Row] = []
    for row in sorted(rows, key=lambda row: (row["mean_calls"], row[key])):
        if not kept or row[key] < kept[-1][key]:
            kept.append(row)
    return kept


def with_mean_calls(row: Row, key: str) -> Row:
    """The row, with the mean calls of a sampler whose calls do not vary."""
    if "mean_calls" in row:
        return row
    calls, num = float(row["network_calls"]), len(row.get(f"{key}_replicates", ()))
    return row | dict.fromkeys(with_ends("mean_calls"), calls) | {"mean_calls_replicates": [calls] * num}


def _read(rows: Sequence[Row], name: str, calls: float, key: str, confidence: float) -> Row:
    replicates = [_replicates(row, key) for row in rows]
    again = np.array([_at(calls, *np.array(points).T) for points in zip(*replicates, strict=True)])
    value = _at(calls, *_columns(rows, "mean_calls", key))
    row = {"sampler": name, "nfe": calls}
    row |= {same: _common(rows, same) for same in ("temperature", "guidance_scale", "num_samples", "length")}
    row |= with_interval(key, value, again, confidence)
    low, high = (_at(calls, *_columns(rows, "mean_calls", f"{key}_{end}")) for end in ("low", "high"))
    row[f"{key}_low"], row[f"{key}_high"] = min(row[f"{key}_low"], low), max(row[f"{key}_high"], high)
    row |= dict.fromkeys(with_ends("mean_calls"), min(float(calls), rows[-1]["mean_calls"]))
    row["network_calls"] = row["mean_calls"]
    if key == "wrong_share":
        row |= _of_answers(rows, calls, row)
    return row | kept_replicates({key: again})


def _of_answers(rows: Sequence[Row], calls: float, row: Row) -> Row:
    """What a reading of answers also holds: the shares of right ones, tokens a call, and answers an item."""
    more: Row = {"wrong_share_high": min(row["wrong_share_high"], 1.0), "right_share": 1 - row["wrong_share"]}
    more |= {"right_share_low": 1 - more["wrong_share_high"], "right_share_high": 1 - row["wrong_share_low"]}
    mean_calls, tokens, distinct = _columns(rows, "mean_calls", "tokens_per_call", "distinct_answers")
    more["tokens_per_call"] = math.exp(_at(calls, mean_calls, np.log(tokens)))
    return more | {"distinct_answers": _at(calls, mean_calls, distinct)}


def _replicates(row: Row, key: str) -> np.ndarray:
    """Calls and verdicts of each resample, `(num_resamples, 2)`."""
    keys = ("mean_calls", key)
    return np.stack([centred(row[name], np.array(row[f"{name}_replicates"], dtype=float)) for name in keys], axis=1)


def _columns(rows: Sequence[Row], *keys: str) -> list[np.ndarray]:
    return [np.array([row[key] for row in rows], dtype=float) for key in keys]


def _at(calls: float, x: np.ndarray, y: np.ndarray) -> float:
    order = np.argsort(x, kind="stable")
    return float(np.interp(np.log(calls), np.log(x[order]), y[order]))


def _common(rows: Sequence[Row], key: str) -> Any:
    """What all rows have; None if they differ."""
    values = {row.get(key) for row in rows}
    return values.pop() if len(values) == 1 else None


def aup(points: Sequence[tuple[float, float]], best: float, alpha: float = ALPHA) -> float:
    r"""AUP, accuracy under parallelism (d3LLM, https://huggingface.co/papers/2601.07568): the area under accuracy
    against tokens per call, in which lower accuracies weigh less.

    With tokens per call `rho_1 < ... < rho_m` and accuracies `y_1, ..., y_m` in percent, of which those below
    `y_1 - 5` are left out,

        AUP = rho_1 y_1 + 1/2 sum_{i >= 2} (rho_i - rho_{i-1}) (y_i W(y_i) + y_{i-1} W(y_{i-1})),
        W(y) = min(exp(-alpha (1 - y / y_max)), 1).

    The first point counts in full, so curves compare only where they begin at the same parallelism: include one token
    a call.

    Args:
        points: pairs of tokens per call and share of right answers, in [0, 1].
        best (`float`): y_max, the largest share that any sampler has on the task, in [0, 1].
        alpha (`float`): 3 in the paper.

    Raises:
        ValueError: if there is no point, or a number of tokens is not positive.
    """
    if not points or min(rho for rho, _ in points) <= 0:
        raise ValueError("`points` must hold pairs of tokens per call, above 0, and shares.")
    ordered = sorted((rho, 100 * share) for rho, share in points)
    kept = [(rho, y) for rho, y in ordered if y >= ordered[0][1] - MOST_LOST]

    rho, y = torch.tensor(kept, dtype=torch.float64).T
    weight = torch.exp(-alpha * (1 - y / (100 * best))).clamp(max=1) if best > 0 else 0
    return float(rho[0] * y[0] + torch.trapezoid(weight * y, rho))


def aup_of_samplers(rows: Sequence[Row], curves: Mapping[str, Sequence[Row]]) -> list[Row]:
    """AUP of each sampler: of its rows at all numbers of calls, or of its curve where its constant was swept.

    Returns:
        a dict each with `sampler`, `points` (how many), `from_tokens` (tokens per call of the first point) and `aup`,
        the largest first.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["sampler"], []).append(row)
    groups |= {name: [row for row in curve if row["read"]] for name, curve in curves.items()}
    best = max((row["right_share"] for group in groups.values() for row in group), default=0.0)
    found = []
    for name, group in groups.items():
        points = [(row["tokens_per_call"], row["right_share"]) for row in group]
        least = min(rho for rho, _ in points)
        found.append({"sampler": name, "points": len(points), "from_tokens": least, "aup": aup(points, best)})
    return sorted(found, key=lambda row: -row["aup"])
