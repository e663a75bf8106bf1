"""Counts of n-grams of texts and tokens, against plain counts."""

from typing import Any

import pytest
import torch

from lsd_sampler.evaluation import bootstrap_weights, js_divergence, js_replicates, ngram_counts


TEXTS = ["the cat sat on the mat", "a dog ran", "the end"]


def js(p: Any, q: Any, n: int) -> float:
    return js_divergence(ngram_counts(p, n), ngram_counts(q, n))


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


def test_resampled_counts_equal_a_recount() -> None:
    weights = bootstrap_weights(len(TEXTS), 5, seed=3)
    assert weights.sum(0).tolist() == [len(TEXTS)] * 5
    reference = ngram_counts(["the rat sat"], 2)
    replicates = js_replicates(ngram_counts(TEXTS, 2), reference, weights)
    for column, replicate in zip(weights.T.long().tolist(), replicates, strict=True):
        texts = [text for text, times in zip(TEXTS, column, strict=True) for _ in range(times)]
        assert replicate == pytest.approx(js_divergence(ngram_counts(texts, 2), reference), abs=1e-12)
