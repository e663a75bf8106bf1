"""A reader's account of what a run learned. Card, terminal and plot all use one [`Description`]."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..sampling.learned_numbers import LearnedSampler
from ..sampling.position_choice import PositionChoice, is_in_nats


Records = Sequence[Mapping[str, Any]]
"""Records of a run, as in `metrics.jsonl`: each has an `event`."""

KINDS = {"teacher": "teacher", "bootstrap": "bootstrapped", "data": "real"}
"""Names of the sequences from each source."""
UNITS = {"position_shares": "positions", "entropy_shares": "nats", "entropy_bounds": "nats a call"}
"""What a budget is counted in."""


@dataclass(frozen=True)
class Description:
    """What was learned.

    Args:
        method (`str`): the training method.
        gain (`str`): the advantage of its sampler over a plain one; the rest of a sentence.
        heading (`tuple[str, ...]`), rows (`tuple[tuple[str, ...], ...]`): a table, in Markdown; a row for each number
            of network calls.
        lines (`tuple[str, ...]`): the same for a terminal.
        times, coefficients (`dict[int, list[float]]`): numbers to draw for each number of calls; times where no choice
            of positions takes their place, coefficients where they are not all 1.
        records: the records of this sampler.
        num_numbers (`int`): number of columns of the table, from the left, that hold a number each.
        batch_size (`int`, *optional*): sequences in a network call; None for all at once.
        open_after (`dict[int, list[float]]`): for each number of calls with a choice of positions the share of its
            budget that is open at the start and after each call, from 1 to 0; not where the budget is in nats.
        units (`dict[int, str]`): for each number of calls with a choice, what the budget is counted in.
        masked_after (`dict[int, list[float]]`): for each of these, where it was measured, the mean share of tokens
            that are masked after each call.
    """

    method: str
    gain: str
    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[str, ...]
    times: Mapping[int, list[float]]
    coefficients: Mapping[int, list[float]]
    records: Records
    num_numbers: int = 1
    batch_size: int | None = None
    open_after: Mapping[int, list[float]] = field(default_factory=dict)
    units: Mapping[int, str] = field(default_factory=dict)
    masked_after: Mapping[int, list[float]] = field(default_factory=dict)

    def table(self) -> str:
        """The table, in Markdown."""
        rule = [*["--:"] * self.num_numbers, *[":--"] * (len(self.heading) - self.num_numbers)]
        rows = [self.heading, *self.rows]
        head, *body = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([head, f"|{'|'.join(rule)}|", *body])


def describe_sampler(method: str, learned: LearnedSampler, records: Records) -> Description:
    """The description of any learned sampler by its numbers: its times, and its coefficients where they are not 1.

    Args:
        method (`str`): the training method.
        learned ([`LearnedSampler`]): the sampler that it learned.
        records: the records of the run.
    """
    keys = ["timesteps", "score_coefficients"]
    if has_unsaid_coefficients(learned, records):
        keys.append("log_score_coefficients")
    names = {"timesteps": "`timesteps`, and where the last step ends"}
    steps = sorted(learned.steps.items())
    choices = choices_of(learned)
    return Description(
        method=method,
        gain=_gain(learned),
        heading=("network calls", *(names.get(key, f"`{key}`") for key in keys)),
        rows=tuple((str(M), *(numbers(getattr(s, key)) for key in keys)) for M, s in steps),
        lines=tuple(f"{M:4d} calls  {key}: {numbers(getattr(s, key))}" for M, s in steps for key in keys),
        times={M: s.timesteps.tolist() for M, s in steps if M not in choices},
        coefficients=drawn_coefficients(learned),
        records=records,
        open_after={M: choice.course.tolist() for M, choice in choices.items() if not is_in_nats(choice.budget)},
        units={M: UNITS[choice.budget] for M, choice in choices.items()},
        masked_after={
            r["nfe"]: [1 - known for known in r["known_after_step"]]
            for r in schedule_records(learned, records)
            if "known_after_step" in r
        },
    )


def choices_of(learned: LearnedSampler) -> dict[int, PositionChoice]:
    """The choices of positions, by number of calls."""
    return {M: s.choice for M, s in sorted(learned.steps.items()) if s.choice is not None}


def schedule_records(learned: LearnedSampler, records: Records) -> Records:
    """What was measured of the choices of positions, at most one record for each number of calls."""
    choices = choices_of(learned)
    last = {r["nfe"]: r for r in records if r["event"] == "schedule" and r.get("nfe") in choices}
    return [last[M] for M in sorted(last)]


def has_unsaid_coefficients(learned: LearnedSampler, records: Records) -> bool:
    """Whether coefficients of the log-score are not all 1, and no records, with a section of their own, tell of it."""
    if any(r["event"] == "log_score_coefficients" for r in records):
        return False
    return any(bool((s.log_score_coefficients != 1).any()) for s in learned.steps.values())


def drawn_coefficients(learned: LearnedSampler) -> dict[int, list[float]]:
    """For each number of calls the coefficients of the score, or else of the log-score, that are not all 1."""
    drawn = {}
    for M, s in learned.steps.items():
        not_one = [c for c in (s.score_coefficients, s.log_score_coefficients) if not bool((c == 1).all())]
        if not_one:
            drawn[M] = not_one[0].tolist()
    return drawn


def numbers(values: Any) -> str:
    """Numbers in a row, from a list or a tensor."""
    return " ".join(f"{float(value):.4f}" for value in values)


def limits(choice: PositionChoice) -> str:
    """The shares or the nats of each call in a row."""
    return f"{numbers(choice.shares[:-1])} all".strip() if is_in_nats(choice.budget) else numbers(choice.shares)


def _gain(learned: LearnedSampler) -> str:
    if learned.chooses:
        return "it learned which positions each call reveals, and how many, by what the logits say."
    if learned.step_error is not None:
        most = len(learned.step_error.grid)
        return f"its schedule for any number of calls up to {most} follows from a table measured along teacher paths."
    fixed = all(bool((s.score_coefficients == 1).all()) for s in learned.steps.values())
    return "learned times of the network calls" + ("." if fixed else ", and a coefficient of the score for each.")
