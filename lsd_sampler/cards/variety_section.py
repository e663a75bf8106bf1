"""The section of a card on how varied the fills of one canvas are, for conditional tasks."""

from ..learned.description import Records


MEANING = (
    "Shares of tokens. For an exact sampler the two are equal; fills that differ less than they err have lost variety."
)


def variety_section(records: Records) -> str:
    """How often two fills differ beside how often a fill differs from the truth; empty where it was not measured."""
    measured = {r["nfe"]: r for r in records if r["event"] == "variety"}
    if not measured:
        return ""
    head = "| network calls | two fills of a canvas differ | a fill differs from the truth | canvases |"
    rows = [
        f"| {M} | {r['fills_differ']:.4f} | {r['fill_differs_from_truth']:.4f} | {r['sequences']} |"
        for M, r in sorted(measured.items())
    ]
    return "\n\n".join(["## Variety", "\n".join([head, "|--:|--:|--:|--:|", *rows]), MEANING])
