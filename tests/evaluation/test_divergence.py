"""Laws of n-gram divergences, of entropies and repetition, and of the bootstrap."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lsd_sampler.evaluation import (
    bootstrap_weights,
    centred,
    centred_interval,
    conditional_entropy,
    distinct_n,
    entropy_replicates,
    js_divergence,
    js_replicates,
    ngram_counts,
    repetition_n,
    sequence_entropy,
)


TEXTS = ["the cat sat on the mat", "a dog ran", "the end"]


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


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_counts_equal_a_plain_count_within_texts(n: int) -> None:
    texts = [*TEXTS, "x", "", "zoë 🙂🙂🙂 zoë"]
    plain: dict[str, int] = {}
    for text in texts:
        for i in range(len(text) - n + 1):
            plain[text[i : i + n]] = plain.get(text[i : i + n], 0) + 1
    table = ngram_counts(texts, n)
    assert sorted(table.counts.tolist()) == sorted(plain.values())
    assert table.total == sum(plain.values())
    assert table.num_samples == len(texts)


def test_ngrams_do_not_cross_boundaries() -> None:
    assert ngram_counts(["ab", "cd"], 2).total == 2
    assert js(["ab", "cd"], ["cd", "ab"], 2) == 0.0
    assert js(["ab", "cd"], ["abcd"], 2) > 0.0


def test_tokens_in_tensors_arrays_and_lists_count_alike() -> None:
    ids = torch.tensor([[1, 2, 3], [3, 2, 1]])
    for same in (ids.numpy(), ids.tolist()):
        assert js(ids, same, 2) == 0.0


@pytest.mark.parametrize("bad", [[], ["ab"], torch.tensor([1, 2]), torch.tensor([[-1, 2, 3]])])
def test_bad_samples_are_named(bad: Any) -> None:
    with pytest.raises(ValueError, match="`samples`"):
        ngram_counts(bad, 3)


def test_mixed_lengths_and_bad_n_raise() -> None:
    with pytest.raises(ValueError, match="`n`"):
        ngram_counts(TEXTS, 0)
    with pytest.raises(ValueError, match="one length"):
        js_divergence(ngram_counts(TEXTS, 2), ngram_counts(TEXTS, 3))


def test_entropies_of_known_laws() -> None:
    cycle = torch.arange(4000).remainder(8).view(1, -1)
    assert conditional_entropy(cycle, 1) == pytest.approx(math.log(8), abs=1e-12)
    assert conditional_entropy(cycle, 2) == pytest.approx(0.0, abs=1e-4)
    assert sequence_entropy(cycle) == pytest.approx(math.log(8), abs=1e-12)
    # two constant samples: each has entropy 0, the set has ln 2
    constant = torch.tensor([[0] * 5, [1] * 5])
    assert sequence_entropy(constant) == 0.0
    assert conditional_entropy(constant, 1) == pytest.approx(math.log(2))
    assert conditional_entropy(constant, 2) == pytest.approx(0.0, abs=1e-15)
    assert conditional_entropy(["abab", "ab"], 3) == pytest.approx(0.0, abs=1e-15)


def test_distinct_and_repetition_by_hand() -> None:
    assert distinct_n(["aaaa", "ab"], 2) == pytest.approx(2 / 4)
    # 2-grams: aaaa has aa aa aa, abab has ab ba ab, and "x" has none
    assert repetition_n(["aaaa", "abab", "x"], 2) == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert repetition_n(torch.arange(10).view(2, 5), 4) == 0.0


def test_repetition_looks_inside_samples_only() -> None:
    assert repetition_n(["abcd"] * 5, 2) == 0.0 < 1 - distinct_n(["abcd"] * 5, 2)


# ---- bootstrap ----


def test_resampled_counts_equal_a_recount() -> None:
    weights = bootstrap_weights(len(TEXTS), 5, seed=3)
    assert weights.sum(0).tolist() == [len(TEXTS)] * 5
    reference = ngram_counts(["the rat sat"], 2)
    replicates = js_replicates(ngram_counts(TEXTS, 2), reference, weights)
    for column, replicate in zip(weights.T.long().tolist(), replicates, strict=True):
        texts = [text for text, times in zip(TEXTS, column, strict=True) for _ in range(times)]
        assert replicate == pytest.approx(js_divergence(ngram_counts(texts, 2), reference), abs=1e-12)


def test_bootstrap_spread_is_the_true_spread() -> None:
    generator = torch.Generator().manual_seed(0)
    law = torch.arange(1, 21).double()
    reference = ngram_counts(torch.multinomial(law, 20_000, replacement=True, generator=generator).view(200, 100), 2)
    tables = [
        ngram_counts(torch.multinomial(law, 20_000, replacement=True, generator=generator).view(200, 100), 2)
        for _ in range(60)
    ]
    true = np.std([js_divergence(table, reference) for table in tables])
    estimates = [js_replicates(table, reference, bootstrap_weights(200, 100)).std() for table in tables[:5]]
    assert 0.6 < float(np.mean(estimates) / true) < 1.7


def test_replicates_of_the_entropy_equal_a_recount() -> None:
    weights = bootstrap_weights(len(TEXTS), 4, seed=1)
    replicates = entropy_replicates(ngram_counts(TEXTS, 1), weights)
    for column, replicate in zip(weights.T.long().tolist(), replicates, strict=True):
        texts = [text for text, times in zip(TEXTS, column, strict=True) for _ in range(times)]
        assert replicate == pytest.approx(conditional_entropy(texts, 1), abs=1e-12)


def test_bootstrap_is_deterministic_per_seed_and_centred_on_the_estimate() -> None:
    p, q = ngram_counts(TEXTS * 10, 3), ngram_counts(["the dog sat on the mat"], 3)
    first, again, other = (js_replicates(p, q, bootstrap_weights(30, 50, seed)) for seed in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()
    value = js_divergence(p, q)
    assert centred(value, first).mean() == pytest.approx(value)
    interval = centred_interval(value, first, minimum=0.0)
    assert 0 <= interval.low <= interval.value == value <= interval.high
    with pytest.raises(ValueError, match="`confidence`"):
        centred_interval(value, first, confidence=1.0)


def test_bootstrap_intervals_cover_the_truth() -> None:
    """95 % intervals of a mean: of 200, between 174 and 198 hold it. Were the true coverage 93 to 95 %, this would
    fail with a probability below 1e-3.
    """
    draws = np.random.default_rng(0).exponential(size=(200, 100))
    weights = bootstrap_weights(100, 200).numpy()
    intervals = [centred_interval(x.mean(), x @ weights / 100) for x in draws]
    assert 174 <= sum(interval.low <= 1 <= interval.high for interval in intervals) <= 198
