"""The section of a card on coefficients of the log-score."""

from typing import Any

from lsd_sampler.cards.coefficients_section import coefficients_section


EVENT = {"event": "log_score_coefficients"}
MEASURED: dict[str, Any] = {
    **EVENT,
    "nfe": 2,
    "coefficients": [1.25, 0.5],
    "distance_before": 0.25,
    "distance_after": 0.125,
    "change": -0.125,
    "change_low": -0.1875,
    "change_high": -0.0625,
    "adopted": True,
}


def test_a_run_without_coefficients_has_no_such_section() -> None:
    assert coefficients_section([{"event": "config"}, {**EVENT, "left_out": "sequences differ in length"}]) == ""


def test_each_number_of_calls_has_a_row_of_what_was_measured() -> None:
    """Rejected ones are told; inherited ones have no distances."""
    inherited = {**EVENT, "nfe": 8, "coefficients": [1.0], "inherited": True}
    section = coefficients_section([MEASURED, {**MEASURED, "nfe": 4, "adopted": False}, inherited])
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    numbers = "| 1.250 0.500 | 0.25000 | 0.12500 | -0.12500 (-0.18750 to -0.06250)"
    assert rows == [f"| 2 {numbers} |", f"| 4 {numbers}, not kept |", "| 8 | 1.000 | | | those of fewer calls |"]
    assert section.startswith("## Coefficients of the log-score\n") and "interpolated" not in section


def test_interpolation_is_told_where_a_table_gives_any_number_of_calls() -> None:
    table = {"event": "step_error"}
    assert "interpolated" in coefficients_section([table, MEASURED, {**MEASURED, "nfe": 4}])
    assert "interpolated" not in coefficients_section([table, MEASURED])
