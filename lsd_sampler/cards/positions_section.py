"""The section of a card on which positions each call reveals, for samplers that learned it."""

from collections.abc import Mapping
from typing import Any

from ..learned.description import UNITS, Records, choices_of, limits
from ..sampling.dependence import Dependence
from ..sampling.learned_numbers import LearnedSampler
from ..sampling.position_choice import WEIGHTS, PositionChoice


DEPENDENCE_PLOT = "dependence.png"

READING = (
    "A call reveals every position whose entropy is below `free below`. It also reveals its share of the other, open\n"
    "ones (of their number, or of their entropy in nats), or as many as have its nats together. The lowest scores\n"
    "come first. The last call reveals the rest.\n"
    "The score is a weighted sum: a position's `own` entropy, the `redundancy` with what the call takes already,\n"
    "minus the `gain` (what the position would tell about the others), all three relative to the mean entropy of the\n"
    "open positions, and its place in a `random` and in a `halton` order."
)
OBJECTIVES = {
    "likelihood": "The objective was the likelihood: the sampler should draw what the model would draw with one token"
    " a call, so\nsequences that it is forced along cost the least nats.",
    "answers": "The objective was the share of right answers to training prompts, by a checker: the sampler may draw"
    " less varied\nsequences than the model would.",
}
COSTS = {
    "nats": "Nats per sequence: what sequences that the candidate was not fitted to cost when it is forced along them;"
    " lower\nis better.",
    "wrong": "Share wrong: how many answers to tasks that the candidate was not fitted to are wrong; lower is better."
    " The\ndifference counts the price of a call, too.",
}
"""What is compared, by the name of the figure in the records."""
HEADINGS = {"nats": "nats per sequence", "wrong": "share wrong"}
ERRORS = (
    " In brackets: standard errors (of differences over pairs). The simple orders are `random` and\n"
    "`halton`, with learned shares."
)


def positions_section(learned: LearnedSampler, records: Records, has_plot: bool = False) -> str:
    """What decides the positions, for what objective, and what the candidates cost; empty without such a choice.

    Args:
        learned ([`LearnedSampler`]): the sampler.
        records: its records; those of the events `schedule`, `position_candidate` and `dependence` are told.
        has_plot (`bool`, defaults to `False`): whether there is a picture of the dependence.
    """
    if not learned.chooses:
        return ""
    parts = ["## Which positions", _table(choices_of(learned)), READING, *_objectives(records)]
    if learned.dependence is not None:
        parts.append(_dependence(learned.dependence, records))
        parts += [f"![dependence between positions]({DEPENDENCE_PLOT})"] if has_plot else []
    measured = [r for r in records if r["event"] == "position_candidate"]
    if measured:
        figure = next(name for name in COSTS if name in measured[0])
        parts += ["### What the candidates cost", _costs(measured, figure), COSTS[figure] + ERRORS]
    return "\n\n".join(parts)


def _table(choices: Mapping[int, PositionChoice]) -> str:
    head = f"| network calls | {' | '.join(WEIGHTS)} | free below (nats) | budget | share or nats of each call |"
    rows = [
        f"| {M} | {_weights(choice.weights, ' | ')} | {float(choice.free_below):.4g} | {UNITS[choice.budget]}"
        f" | {limits(choice)} |"
        for M, choice in choices.items()
    ]
    return "\n".join([head, f"|--:|{'--:|' * len(WEIGHTS)}--:|:--|:--|", *rows])


def _weights(weights: Any, between: str = " ") -> str:
    return between.join(f"{float(weight):.4g}" for weight in weights)


def _objectives(records: Records) -> list[str]:
    """A sentence on each objective that was learned for."""
    names = dict.fromkeys(r["objective"] for r in records if r["event"] == "schedule" and r.get("objective"))
    return [OBJECTIVES.get(name, f"The objective was `{name}`.") for name in names]


def _dependence(dependence: Dependence, records: Records) -> str:
    """What kappa is, and how it was measured."""
    by = {"matrix": "each pair of positions", "offset": "distance", "offset_2d": "distance in rows and columns"}
    measured = next((r for r in records if r["event"] == "dependence"), {})
    text = (
        "Redundancy and gain use kappa: the uncertainty that revealing one position takes away from another, as a\n"
        f"share of the smaller of their two entropies. It was measured by {by[dependence.layout]}"
    )
    if dependence.num_buckets > 1:
        text += f", in {dependence.num_buckets} buckets\nof the known share of the canvas"
    found = [f"mean {measured['mean']:.4f}"] if "mean" in measured else []
    found += [f"{measured['network_calls']} network calls so far"] if "network_calls" in measured else []
    return f"{text} ({', '.join(found)})." if found else f"{text}."


def _costs(measured: Records, figure: str) -> str:
    head = (
        f"| network calls | candidate | weights ({', '.join(WEIGHTS)}) | free below (nats) | budget"
        f" | {HEADINGS[figure]} | more than the best simple order | |"
    )
    rows = [_cost(r, figure) for r in sorted(measured, key=lambda r: r["nfe"])]
    return "\n".join([head, "|--:|:--|:--|--:|:--|--:|--:|:--|", *rows])


def _cost(r: Mapping[str, Any], figure: str) -> str:
    cells = (
        r["nfe"],
        r["name"],
        _weights(r["weights"]),
        f"{r['free_below']:.4g}",
        UNITS[r["budget"]],
        f"{r[figure]:.4f} ({r['standard_error']:.4f})",
        f"{r['difference']:+.4f} ({r['difference_error']:.4f})",
        "chosen" if r["chosen"] else "",
    )
    return f"| {' | '.join(map(str, cells))} |"
