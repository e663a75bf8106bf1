"""How varied samples are: entropies, distinct n-grams, repetition. A likelihood must never be shown without them.

All values are plug-in estimates; entropies are in nats. They depend on the number of samples, so compare only equal
numbers.
"""

import numpy as np
import torch

from .bootstrap import RESAMPLES_AT_ONCE
from .columns import Metric
from .ngrams import NgramCounts, Samples, context_counts, ngram_counts


UNIGRAM_ENTROPY = Metric(
    "unigram_entropy",
    "unigram entropy",
    "Entropy of the tokens of all samples together, in nats. It should be that of real data.",
)
BIGRAM_ENTROPY = Metric(
    "bigram_entropy",
    "cond. entropy",
    "Entropy of a token given the one before it, in nats. It should be that of real data, neither more nor less.",
)
DIVERSITY = (
    Metric(
        "sequence_entropy",
        "entropy in a sample",
        "Entropy of the tokens inside one sample, in nats, averaged: what published tables call entropy.",
    ),
    UNIGRAM_ENTROPY,
    BIGRAM_ENTROPY,
    Metric("distinct_1", "distinct-1", "Distinct tokens divided by all tokens."),
    Metric("distinct_2", "distinct-2", "Distinct pairs of tokens divided by all pairs."),
    Metric("distinct_3", "distinct-3", "The same for triples."),
    Metric("distinct_4", "distinct-4", "The same for four in a row."),
    Metric("repetition_4", "rep-4", "Share of a sample's token 4-grams that occurred in it before."),
)
"""What [`diversity`] returns."""


def diversity(sequences: torch.Tensor) -> dict[str, float | None]:
    """All metrics of `DIVERSITY` for token ids of shape `(num_samples, length)`; None for n-grams longer than that."""
    row: dict[str, float | None] = {
        "sequence_entropy": sequence_entropy(sequences),
        "unigram_entropy": conditional_entropy(sequences, 1),
        "bigram_entropy": conditional_entropy(sequences, 2),
    }
    row |= {f"distinct_{n}": distinct_n(sequences, n) if sequences.shape[1] >= n else None for n in (1, 2, 3, 4)}
    return row | {"repetition_4": repetition_n(sequences, 4) if sequences.shape[1] >= 4 else None}


def conditional_entropy(samples: Samples, n: int = 1) -> float:
    """Entropy of a symbol given the `n - 1` before it, in nats: unigram (n = 1), bigram-conditional (2),
    trigram-conditional (3).

    Raises:
        ValueError: as `ngram_counts`.
    """
    joint = _entropy(ngram_counts(samples, n).counts)
    return joint if n == 1 else max(joint - _entropy(context_counts(samples, n)), 0.0)


def entropy_replicates(counts: NgramCounts, weights: torch.Tensor) -> np.ndarray:
    """Entropy of the n-grams, in nats, for each resample of the samples behind `counts`.

    Args:
        weights (`torch.FloatTensor` of shape `(num_samples, num_resamples)`): see `bootstrap_weights`.

    Returns:
        `float64` array of shape `(num_resamples,)`.
    """
    tables = (counts.resampled(block) for block in weights.split(RESAMPLES_AT_ONCE, dim=1))
    return torch.cat([torch.special.entr(table / table.sum(0)).sum(0) for table in tables]).numpy()


def sequence_entropy(samples: Samples) -> float:
    """Mean over samples of the unigram entropy inside one sample, in nats: the "entropy" that published tables report.

    Raises:
        ValueError: as `ngram_counts`.
    """
    owner, counts = _within_samples(ngram_counts(samples, 1))
    share = counts / np.bincount(owner, weights=counts)[owner]
    return float(-(share * np.log(share)).sum() / len(np.unique(owner)))


def distinct_n(samples: Samples, n: int) -> float:
    """Distinct n-grams divided by all n-grams of the set, in (0, 1] (https://huggingface.co/papers/1510.03055).

    It falls as the set grows: compare equal sizes.

    Raises:
        ValueError: as `ngram_counts`.
    """
    table = ngram_counts(samples, n)
    return len(table.keys) / table.total


def repetition_n(samples: Samples, n: int = 4) -> float:
    """Share of a sample's n-grams that have occurred in it before, averaged over samples, in [0, 1): "seq-rep-n" of
    https://huggingface.co/papers/1908.04319.

    Samples too short for an n-gram do not count.

    Raises:
        ValueError: as `ngram_counts`.
    """
    owner, counts = _within_samples(ngram_counts(samples, n))
    totals, distinct = np.bincount(owner, weights=counts), np.bincount(owner)
    long_enough = totals > 0
    return float((1 - distinct[long_enough] / totals[long_enough]).mean())


def _entropy(counts: np.ndarray) -> float:
    p = counts / counts.sum()
    return float(max(-(p * np.log(p)).sum(), 0.0))


def _within_samples(table: NgramCounts) -> tuple[np.ndarray, np.ndarray]:
    """For each sample and each n-gram in it: the sample, and how often it occurs there."""
    ngram = np.repeat(np.arange(len(table.keys)), table.counts)
    pair, counts = np.unique(table.owners * len(table.keys) + ngram, return_counts=True)
    return pair // len(table.keys), counts
