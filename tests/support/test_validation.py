"""Arguments that are not as they must be are named, with what they must be."""

import math
import sys
from typing import Any

import numpy as np
import pytest

from lsd_sampler.support.validation import check_choice, check_number, check_text, did_you_mean


def test_only_a_near_name_is_advised() -> None:
    assert did_you_mean("haltn", ["random", "halton"]) == " Did you mean 'halton'?"
    assert did_you_mean("x", ["random", "halton"]) == "" == did_you_mean("x", [])


def test_choices_and_texts() -> None:
    check_choice("count", "a", ["a", "b"])
    with pytest.raises(ValueError, match=r"`count` must be one of \['a', 'b'\], got 'c'"):
        check_choice("count", "c", ("a", "b"))
    for text in ("", "x", None):
        check_text("prefix", text)
    with pytest.raises(ValueError, match="`prefix` must be a text or None, got 3"):
        check_text("prefix", 3)


@pytest.mark.parametrize(
    ("value", "options"),
    [
        (0, {}),
        (1.5, {"low": 1.5, "high": 1.5}),
        (np.float64(0.5), {"open_ends": True, "low": 0, "high": 1}),
        (np.int64(3), {"integer": True}),
        (2**63 - 1, {"integer": True}),
        (-sys.float_info.max, {}),
        (None, {"optional": True, "low": 1}),
    ],
)
def test_numbers_in_their_range(value: Any, options: dict[str, Any]) -> None:
    check_number("x", value, **options)


@pytest.mark.parametrize(
    ("value", "options", "words"),
    [
        (None, {}, "a finite number in [-inf, inf], got None"),
        ("1", {}, "a finite number"),
        (True, {}, "got True"),
        (True, {"integer": True}, "got True"),
        (math.nan, {}, "got nan"),
        (-math.inf, {}, "got -inf"),
        (10**400, {}, "a finite number"),
        (1.0, {"integer": True, "low": 1}, "an integer in [1, inf], got 1.0"),
        (2**63, {"integer": True}, "an integer"),
        (0, {"low": 1}, "in [1, inf], got 0"),
        (2, {"high": 1}, "in [-inf, 1], got 2"),
        (0, {"low": 0, "high": 1, "open_ends": True}, "in (0, 1), got 0"),
        (1, {"low": 0, "high": 1, "open_ends": True}, "in (0, 1), got 1"),
    ],
)
def test_other_values_are_named(value: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_number("x", value, **options)
    assert str(caught.value).startswith("`x` must be ") and words in str(caught.value)
