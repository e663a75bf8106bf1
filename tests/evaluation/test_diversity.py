"""Entropies of known laws, distinct n-grams and repetition by hand."""

import math

import pytest
import torch

from lsd_sampler.evaluation import (
    bootstrap_weights,
    conditional_entropy,
    distinct_n,
    entropy_replicates,
    ngram_counts,
    repetition_n,
    sequence_entropy,
)


TEXTS = ["the cat sat on the mat", "a dog ran", "the end"]


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


def test_replicates_of_the_entropy_equal_a_recount() -> None:
    weights = bootstrap_weights(len(TEXTS), 4, seed=1)
    replicates = entropy_replicates(ngram_counts(TEXTS, 1), weights)
    for column, replicate in zip(weights.T.long().tolist(), replicates, strict=True):
        texts = [text for text, times in zip(TEXTS, column, strict=True) for _ in range(times)]
        assert replicate == pytest.approx(conditional_entropy(texts, 1), abs=1e-12)
