"""The section of a card on coefficients of the log-score that the two-sided criterion found."""

from collections.abc import Mapping
from typing import Any

from ..learned.description import Records


def coefficients_section(records: Records) -> str:
    """The coefficients, and the distances that decided on them; empty for a run without coefficients."""
    measured = [r for r in records if r["event"] == "log_score_coefficients" and "coefficients" in r]
    if not measured:
        return ""
    head = "| network calls | `log_score_coefficients` | distance with 1 | with these | change, 99 % interval |"
    meaning = (
        "Distance: Jensen-Shannon divergences of token n-grams, rare ones pooled, between samples and sequences that\n"
        "they were not fitted to. Coefficients are kept where they are better by more than chance, else they are 1."
    )
    if len(measured) > 1 and any(r["event"] == "step_error" for r in records):  # a schedule for any number of calls
        meaning += "\nBetween two numbers of calls they are interpolated, beyond them they are 1."
    rows = [_row(r) for r in measured]
    return "\n\n".join(
        ["## Coefficients of the log-score", "\n".join([head, "|--:|:--|--:|--:|:--|", *rows]), meaning]
    )


def _row(r: Mapping[str, Any]) -> str:
    values = " ".join(f"{value:.3f}" for value in r["coefficients"])
    if "inherited" in r:
        return f"| {r['nfe']} | {values} | | | those of fewer calls |"
    change = f"{r['change']:+.5f} ({r['change_low']:+.5f} to {r['change_high']:+.5f})"
    kept = "" if r["adopted"] else ", not kept"
    return f"| {r['nfe']} | {values} | {r['distance_before']:.5f} | {r['distance_after']:.5f} | {change}{kept} |"
