"""Options as fields: what None stands for, and what is refused."""

from dataclasses import dataclass, fields
from typing import Any

import pytest

from lsd_sampler.training.options import MethodOptions, check_positive, choices_of, option


@dataclass(frozen=True)
class Options(MethodOptions):
    share: float | None = option(None, "a share", float, unset=0.25)
    kind: str = option("a", "a kind", choices=lambda: ["a", "b"])
    place: str | None = option(None, "a place", choices=("here", "there"))


def test_none_stands_for_what_the_method_says() -> None:
    assert Options() == Options(share=0.25)
    assert Options(share=0.0).share == 0.0
    assert Options().place is None


def test_choices_may_be_listed_later() -> None:
    assert [choices_of(each) for each in fields(Options)] == [[], ["a", "b"], ["here", "there"]]


@pytest.mark.parametrize(("name", "value"), [("kind", "c"), ("kind", None), ("place", "nowhere")])
def test_what_is_no_choice_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{name}`"):
        Options(**{name: value})


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1", None])
def test_only_integers_above_0_are_positive(value: Any) -> None:
    check_positive("size", 1)
    with pytest.raises(ValueError, match="`size` must be a positive integer"):
        check_positive("size", value)
