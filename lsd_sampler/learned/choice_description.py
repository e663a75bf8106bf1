"""A reader's account of a learned choice of positions."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..sampling.learned_numbers import LearnedSampler
from ..sampling.position_choice import WEIGHTS, PositionChoice, is_in_nats
from .description import (
    UNITS,
    Description,
    Records,
    choices_of,
    describe_sampler,
    has_unsaid_coefficients,
    limits,
    numbers,
    schedule_records,
)


COLUMNS = {
    "nats": "nats per sequence",
    "right": "share right",
    "mean_calls": "mean calls",
    "temperature": "temperature",
    "known_after_step": "mean share of tokens known after each call",
}
"""What was measured of each number of calls, and the headings."""


def describe_choice(method: str, learned: LearnedSampler, records: Records) -> Description:
    """The description of a sampler that learned which positions to reveal: a row and a line for each number of calls.

    Args:
        method (`str`): the training method.
        learned ([`LearnedSampler`]): the sampler that it learned.
        records: the records of the run; those of the event `schedule` have `nfe`, and of `nats`, `right`,
            `mean_calls`, `temperature` and `known_after_step` what was measured.
    """
    plain = describe_sampler(method, learned, records)
    if not learned.chooses:
        return plain
    measured = {r["nfe"]: r for r in schedule_records(learned, records)}
    keys = [key for key in COLUMNS if any(_is_told(key, r) for r in measured.values())]
    shows_beta = has_unsaid_coefficients(learned, records)
    beta = {M: numbers(s.log_score_coefficients) for M, s in learned.steps.items()} if shows_beta else {}
    rows, lines = [], []
    for M, choice in choices_of(learned).items():
        figures = {key: _written(key, measured.get(M, {})) for key in keys}
        rows.append((str(M), *figures.values(), *([beta[M]] if beta else [])))
        lines.append(_line(M, choice, figures, beta.get(M)))
    return replace(
        plain,
        heading=("network calls", *(COLUMNS[key] for key in keys), *(["`log_score_coefficients`"] if beta else [])),
        rows=tuple(rows),
        lines=tuple(lines),
        num_numbers=1 + sum(key != "known_after_step" for key in keys),
    )


def weights_in_words(choice: PositionChoice) -> str:
    """The weights that are not 0, such as `own 0.3, halton 1`."""
    named = [f"{name} {choice.weight(name):.4g}" for name in WEIGHTS if choice.weight(name)]
    return ", ".join(named) or "from the left"


def _is_told(key: str, record: Mapping[str, Any]) -> bool:
    """A temperature is told where it is not 1."""
    return record.get(key) is not None and not (key == "temperature" and record[key] == 1)


def _written(key: str, record: Mapping[str, Any]) -> str:
    value = record.get(key)
    if value is None:
        return ""
    if key == "known_after_step":
        return numbers(value)
    return f"{value:.4g}" if key == "temperature" else f"{value:.4f}"


def _line(M: int, choice: PositionChoice, figures: Mapping[str, str], beta: str | None) -> str:
    """All of one number of calls in a line of a terminal."""
    words = {
        "nats": "{} nats/sequence",
        "right": "{} right",
        "mean_calls": "{} calls on average",
        "temperature": "temperature {}",
        "known_after_step": "known after: {}",
    }
    parts = [words[key].format(text) for key, text in figures.items() if text]
    parts += [weights_in_words(choice), f"free below {float(choice.free_below):.4g} nats"]
    limit = "nats of each call" if is_in_nats(choice.budget) else f"shares of open {UNITS[choice.budget]}"
    parts.append(f"{limit}: {limits(choice)}")
    if beta is not None:
        parts.append(f"log_score_coefficients: {beta}")
    return f"{M:4d} calls: {'; '.join(parts)}"
