"""Laws of n-gram divergences."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsd_sampler.evaluation import js_divergence, ngram_counts


def js(p: Any, q: Any, n: int) -> float:
    return js_divergence(ngram_counts(p, n), ngram_counts(q, n))


def test_js_by_hand() -> None:
    # p = (3/4, 1/4) on (a, b); q = (1/2, 1/2) on (a, c); m = (5/8, 1/8, 1/4)
    p, q = {"a": 0.75, "b": 0.25}, {"a": 0.5, "c": 0.5}
    m = {key: (p.get(key, 0) + q.get(key, 0)) / 2 for key in "abc"}
    expected = sum(0.5 * law[key] * math.log(law[key] / m[key]) for law in (p, q) for key in law)
    assert js(["aab", "a"], ["ac"], 1) == pytest.approx(expected, abs=1e-14)


@given(st.lists(st.text("abc", min_size=4), min_size=1), st.lists(st.text("abcd€", min_size=4), min_size=1))
def test_js_is_symmetric_bounded_and_zero_on_itself(p: list[str], q: list[str]) -> None:
    for n in (1, 3, 4):
        assert js(p, p, n) == 0.0
        assert js(p, q, n) == pytest.approx(js(q, p, n), abs=1e-13)
        assert 0 <= js(p, q, n) <= math.log(2)


def test_js_of_disjoint_laws_is_ln_2() -> None:
    assert js(["aaaa"], ["bbbb"], 2) == pytest.approx(math.log(2), abs=1e-14)
