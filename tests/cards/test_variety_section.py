"""The section of a card on the variety of fills."""

from helpers.choosing_sampler import RECORDS

from lsd_sampler.cards.variety_section import variety_section


def test_the_two_shares_are_beside_each_other() -> None:
    section = variety_section(RECORDS)
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert rows == ["| 2 | 0.3125 | 0.3750 | 96 |", "| 3 | 0.1250 | 0.2500 | 96 |"]
    assert section.startswith("## Variety\n") and "For an exact sampler the two are equal" in section


def test_a_task_without_conditions_has_no_such_section() -> None:
    assert variety_section([r for r in RECORDS if r["event"] != "variety"]) == ""
