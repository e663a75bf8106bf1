"""What the report says: sentences and tables agree, and all of it is in the JSON."""

import json
import re

from helpers.example_report import NAMES, example

from lsd_sampler.evaluation.report import as_json, as_text


def test_the_distance_that_decides_is_a_column() -> None:
    """And the sentences say what stands there."""
    table, *_ = as_text(example()).split("\n\n")
    headings, _, *lines = (re.split(r"  +", line.strip()) for line in table.splitlines())
    shown = {(line[0], line[1]): line[headings.index("JS 3+4")] for line in lines}
    for winner in example().winners:
        assert f"is closest ({shown[winner.sampler, str(winner.nfe)]})" in winner.sentence()


def test_all_of_it_as_json() -> None:
    found = json.loads(as_json(example()))
    assert [row["sampler"] for row in found["rows"]] == [name for name in NAMES for _ in range(3)]
    assert found["floor"]["sampler"] == "real text" and "texts" not in found["floor"]
    assert {entry["sampler"] for entry in found["calls_at_matched_quality"]} == set(NAMES[1:])
    assert found["calls_at_matched_quality"][0]["calls"] is None  # not within the calls that were tried
    assert len(found["frontier"]) == 9 and all(reading["entropy"] == 7.0 for reading in found["frontier"])
