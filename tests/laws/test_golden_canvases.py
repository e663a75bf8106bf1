"""One seed gives the tokens that it gave when `tests/golden_canvases.json` was recorded."""

import json

import pytest
from helpers.golden_canvases import FILE, canvases


RECORDED = json.loads(FILE.read_text())["canvases"]


@pytest.fixture(scope="module")
def present() -> dict[str, list[list[int]]]:
    return dict(canvases())


def test_each_canvas_is_the_recorded_one(present: dict[str, list[list[int]]]) -> None:
    assert [name for name in RECORDED if name in present and present[name] != RECORDED[name]] == []
    assert [name for name in RECORDED if name not in present and not name.startswith("books")] == []
