"""Named parts: each name once, in lower case, in order; an unknown one is answered with those there are."""

from typing import Any

import pytest

from lsd_sampler.support.registry import Registry


@pytest.fixture
def registry() -> Registry[int]:
    registry = Registry[int]("order")
    registry.register("random", 1)
    registry.register("halton", 2)
    return registry


def test_parts_come_back_by_name_and_in_order(registry: Registry[int]) -> None:
    assert registry.names() == ["random", "halton"] and registry.parts() == [1, 2]
    assert [registry[name] for name in registry.names()] == registry.parts()


@pytest.mark.parametrize("name", ["random", "Random", "HALTON"])
def test_a_name_that_is_taken_or_not_lower_case_is_refused(registry: Registry[int], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name!r} for `order`"):
        registry.register(name, 3)
    assert registry.parts() == [1, 2]


@pytest.mark.parametrize(
    ("name", "end"), [("haltn", "Did you mean 'halton'?"), ("x", "got 'x'."), (None, "got None.")]
)
def test_an_unknown_name_is_answered_with_those_there_are(registry: Registry[int], name: Any, end: str) -> None:
    with pytest.raises(ValueError) as caught:
        registry[name]
    said = str(caught.value)
    assert said.startswith("`order` must be one of ['random', 'halton'], got ") and said.endswith(end)
