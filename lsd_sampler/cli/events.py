"""The records of a distillation as lines for a person; `metrics.jsonl` has all of them in full."""

from typing import Any


MAX_NUMBERS = 8
"""Longer lists are shown by their ends only."""
# what the line begins with, what is printed at the end, and what is for metrics.jsonl alone
LEFT_OUT = ("event", "candidate", "nfe", "seconds", "reason", "kept_bytes", "peak_device_bytes", "is_image")
LEFT_OUT_OF = {"position_candidate": ("shares", "budget", "standard_error")}


def in_one_line(record: dict[str, Any]) -> str:
    """Time, event and numbers of a record, for example

    `0.1 s  METHOD:halton: coefficients, 4 calls: domain score, score_coefficients 1 0.9893 0.9758 1`.
    """
    head = [record["candidate"]] if "candidate" in record else []
    head.append(record["event"] + (f", {record['nfe']} calls" if "nfe" in record else ""))
    left_out = (*LEFT_OUT, *LEFT_OUT_OF.get(record["event"], ()))
    parts = [f"{name} {_shown(value)}" for name, value in record.items() if name not in left_out and value is not None]
    return f"{record['seconds']:.1f} s  {': '.join([*head, ', '.join(parts)])}"


def in_words(record: dict[str, Any]) -> str:
    """A record of partly given canvases, such as `592, each with 4 random tokens of an exact sample; 12 masked`."""
    fewest, most = record["fewest_masked"], record["most_masked"]
    return f"{record['canvases']}, {record['given']}; {fewest if fewest == most else f'{fewest} to {most}'} masked"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        half = MAX_NUMBERS // 2
        words = [_shown(part) for part in value]
        return " ".join(words if len(words) <= MAX_NUMBERS else [*words[:half], "...", *words[-half:]])
    return f"{value:.4g}" if isinstance(value, float) else str(value)
