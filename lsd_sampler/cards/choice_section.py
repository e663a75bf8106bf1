"""The section of a card that says why a method and an order were chosen."""

from collections.abc import Mapping
from typing import Any

from ..learned.description import Records


def choice_section(records: Records) -> str:
    """The reason, the table of the candidates, and those that were left out; empty for a run without a choice."""
    choice = next((r for r in records if r["event"] == "choice"), None)
    if choice is None:
        return ""
    candidates = [r for r in records if r["event"] == "candidate"]
    measured = [r for r in candidates if "nfe" in r]
    left_out = [
        f"- `{r['method']}` in `{r['order']}` order was left out: {r['left_out']}"
        for r in candidates
        if "left_out" in r
    ]
    meaning = (
        "Nats per token: what sequences that no candidate learned from cost it when it is forced along them, in its\n"
        "own order, by its own numbers; lower is better. In brackets: standard errors (of differences over pairs).\n"
        "A candidate may cost less than the chosen one at some number of calls, or by no more than chance. Its calls\n"
        "are those that it would take alone, with its teacher's."
    )
    parts = ["## Why this method and this order", choice["reason"]]
    if measured:
        parts += [_table(measured, choice), meaning]
    return "\n\n".join([*parts, *(["\n".join(left_out)] if left_out else [])])


def _table(measured: Records, choice: Mapping[str, Any]) -> str:
    rows = []
    for r in measured:
        won = (r["method"], r["order"]) == (choice["method"], choice["order"])
        more = "(chosen)" if won else f"{r['difference']:+.4f} ({r['difference_error']:.4f})"
        nats = f"{r['nats_per_token']:.4f} ({r['standard_error']:.4f})"
        rows.append(f"| `{r['method']}` | `{r['order']}` | {r['nfe']} | {nats} | {more} | {r['network_calls']} |")
    head = "| method | order | network calls | nats per token | more than the chosen one | calls to learn it |"
    return "\n".join([head, "|:--|:--|--:|--:|--:|--:|", *rows])
