"""The section of a card that says how the fills of partly given canvases vary."""

from collections.abc import Mapping
from typing import Any

from ..learned.description import Records


def fills_section(records: Records) -> str:
    """The shares at which fills differ, and what they mean; empty for a run that measured none (event `fills`, with
    `nfe` and what [`~lsd_sampler.sampling.fills.fill_shares`] returns).
    """
    measured = [r for r in records if r["event"] == "fills"]
    if not measured:
        return ""
    truth = any("fill_error" in r for r in measured)
    heads = ["network calls", "two fills differ", *(["fill / truth"] if truth else []), "canvases"]
    rule = "|" + "--:|" * len(heads)
    meaning = (
        "Shares of the positions to be filled in, in brackets standard errors. Two exact fills of a canvas differ as\n"
        "often as a fill differs from the sequence behind it: fills that differ less have lost variety."
    )
    table = "\n".join([f"| {' | '.join(heads)} |", rule, *(_row(r, truth) for r in measured)])
    return "\n\n".join(["## How its fills vary", table, meaning])


def _row(r: Mapping[str, Any], truth: bool) -> str:
    cells = [str(r["nfe"]), _cell(r, "fills_differ"), *([_cell(r, "fill_error")] if truth else []), str(r["canvases"])]
    return f"| {' | '.join(cells)} |"


def _cell(r: Mapping[str, Any], name: str) -> str:
    return f"{r[name]:.4f} ({r[f'{name}_error']:.4f})" if name in r else ""
