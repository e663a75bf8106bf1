"""Metric sets: what `evaluate` computes on the samples of one row, and by which key samplers are compared.

The verdict is always a distance between distributions; a likelihood alone can be bought with entropy (arXiv
2604.02718).
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from .divergence import (
    NgramCounts,
    bootstrap_weights,
    centred_interval,
    conditional_entropy,
    distinct_n,
    js_divergence,
    js_replicates,
    ngram_counts,
    sequence_entropy,
)
from .judge import JudgeNLL
from .oracle import check_transition, forbidden_samples, oracle_statistics
from .tokens import decode


class MetricSet(Protocol):
    """What `evaluate` asks of a metric set."""

    @property
    def verdict_key(self) -> str:
        """The metric that is minimised when samplers, or temperatures of one sampler, are compared."""
        ...

    @property
    def keys(self) -> tuple[str, ...]:
        """The names that `compute` returns. A stored row that lacks one is not reused."""
        ...

    def compute(self, sequences: torch.Tensor, texts: Sequence[str] | None = None) -> dict[str, float]:
        """The metrics of `sequences` (`torch.LongTensor` of shape `(num_samples, length)`) and their decoded texts."""
        ...


def _with_interval(
    name: str, value: float, replicates: np.ndarray, confidence: float, minimum: float | None = 0.0
) -> dict[str, float]:
    interval = centred_interval(value, replicates, confidence, minimum)
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _interval_keys(*names: str) -> tuple[str, ...]:
    return tuple(name + ending for name in names for ending in ("", "_low", "_high"))


class OracleMetrics:
    """Exact metrics for samples of a first-order Markov chain; see `oracle`. Use temperature 1 only: nothing is to be
    tuned.

    Args:
        transition (`torch.DoubleTensor` of shape `(vocab, vocab)`): `P[a, b]`, the probability of b after a.
        initial (`torch.DoubleTensor` of shape `(vocab,)`, *optional*): law of the first token; default: the stationary
            law.
        num_resamples (`int`): bootstrap resamples of whole sequences.
        seed (`int`): of the bootstrap.
        confidence (`float`): of the intervals.

    Raises:
        ValueError: if `transition` is not a transition matrix.
    """

    verdict_key = "reverse_kl"

    def __init__(
        self,
        transition: torch.Tensor,
        *,
        initial: torch.Tensor | None = None,
        num_resamples: int = 200,
        seed: int = 0,
        confidence: float = 0.95,
    ):
        self.transition, self.initial = check_transition(transition), initial
        self.num_resamples, self.seed, self.confidence = num_resamples, seed, confidence

    @property
    def keys(self) -> tuple[str, ...]:
        intervals = _interval_keys("forbidden_share", "reverse_kl", "bigram_tv")
        return (*intervals, "forbidden_samples", "unigram_entropy", "bigram_entropy")

    def compute(self, sequences: torch.Tensor, texts: Sequence[str] | None = None) -> dict[str, float]:
        """Metrics of `sequences`, of shape `(num_samples, length)`. `texts` are not looked at.

        Raises:
            ValueError: if a state is outside the vocabulary, a mask left over for example.
        """
        weights = bootstrap_weights(len(sequences), self.num_resamples, self.seed)
        values = oracle_statistics(sequences, self.transition, initial=self.initial)
        replicates = oracle_statistics(sequences, self.transition, weights, initial=self.initial)
        row: dict[str, float] = {}
        for name in ("forbidden_share", "reverse_kl", "bigram_tv"):
            row |= _with_interval(name, float(values[name]), replicates[name].numpy(), self.confidence)
        row["forbidden_samples"] = forbidden_samples(sequences, self.transition)
        row["unigram_entropy"] = conditional_entropy(sequences)
        row["bigram_entropy"] = float(values["conditional_entropy"])
        return row


class TextMetrics:
    """Distance of decoded samples from real text, entropies, and the judge's likelihood where a judge is given.

    The verdict `js_char_sum` is the sum over `orders` of the Jensen-Shannon divergences of character n-grams from
    `reference_texts` (nats). Intervals hold the reference fixed: they say how the value moves with the samples.

    Args:
        tokenizer: of the sequences (`tokenizers.Tokenizer` or transformers).
        judge (`JudgeNLL`, *optional*): scores token ids where it has the same tokenizer, texts otherwise.
        reference_texts: real texts that no sampler, and not the floor, has seen; cut like the samples.
        orders: lengths of the character n-grams.
        max_judged (`int`, *optional*): let the judge, the slowest part, score only the first so many; 256 samples
            of 128 tokens give its mean to a few hundredths of a nat. All other metrics use all samples.
        num_resamples (`int`): bootstrap resamples of whole samples.
        seed (`int`): of the bootstrap.
        confidence (`float`): of the intervals.

    Raises:
        ValueError: if `reference_texts` is empty or shorter than an n-gram, or `max_judged` is below 1.
    """

    verdict_key = "js_char_sum"

    def __init__(
        self,
        tokenizer: Any,
        judge: JudgeNLL | None,
        reference_texts: Sequence[str],
        *,
        orders: Sequence[int] = (3, 4),
        max_judged: int | None = None,
        num_resamples: int = 200,
        seed: int = 0,
        confidence: float = 0.95,
    ):
        if not reference_texts or not orders:
            raise ValueError("`reference_texts` and `orders` must not be empty.")
        if max_judged is not None and max_judged < 1:
            raise ValueError(f"`max_judged` must be at least 1, got {max_judged}.")
        self.tokenizer, self.orders = tokenizer, tuple(orders)
        self.judge, self.max_judged = judge, max_judged
        self.reference_texts = frozenset(reference_texts)
        self.num_resamples, self.seed, self.confidence = num_resamples, seed, confidence
        self._references: dict[int, NgramCounts] = {n: ngram_counts(reference_texts, n) for n in self.orders}

    @property
    def keys(self) -> tuple[str, ...]:
        divergences = _interval_keys(*(f"js_char_{n}gram" for n in self.orders), self.verdict_key)
        entropies = ("sequence_entropy", "unigram_entropy", "bigram_entropy", "char_trigram_entropy", "distinct_2")
        return (*(_interval_keys("judge_nll") if self.judge else ()), *entropies, *divergences)

    def compute(self, sequences: torch.Tensor, texts: Sequence[str] | None = None) -> dict[str, float]:
        """Metrics of `sequences`, of shape `(num_samples, length)`, decoded here where `texts` is None. All in nats.

        Raises:
            ValueError: if `texts` and `sequences` differ in number, or the judge cannot score them.
        """
        texts = decode(self.tokenizer, sequences) if texts is None else texts
        if len(texts) != len(sequences):
            raise ValueError(f"`texts` and `sequences` must be equally many, got {len(texts)} and {len(sequences)}.")
        weights = bootstrap_weights(len(texts), self.num_resamples, self.seed)
        row = self._likelihood(sequences[: self.max_judged], texts[: self.max_judged]) | self._entropies(
            sequences, texts
        )
        return row | self._js(texts, weights)

    def _likelihood(self, sequences: torch.Tensor, texts: Sequence[str]) -> dict[str, float]:
        if self.judge is None:
            return {}
        scores = self.judge.score(sequences, texts, self.tokenizer)
        weights = bootstrap_weights(len(texts), self.num_resamples, self.seed).double().T
        replicates = (weights @ scores.nll) / (weights @ scores.num_tokens.double())
        return _with_interval("judge_nll", scores.mean, replicates.numpy(), self.confidence)

    def _entropies(self, sequences: torch.Tensor, texts: Sequence[str]) -> dict[str, float]:
        return {
            "sequence_entropy": sequence_entropy(sequences),
            "unigram_entropy": conditional_entropy(sequences, 1),
            "bigram_entropy": conditional_entropy(sequences, 2),
            "char_trigram_entropy": conditional_entropy(texts, 3),
            "distinct_2": distinct_n(sequences, 2),
        }

    def _js(self, texts: Sequence[str], weights: torch.Tensor) -> dict[str, float]:
        row: dict[str, float] = {}
        total, total_replicates = 0.0, np.zeros(self.num_resamples)
        for n, reference in self._references.items():
            counts = ngram_counts(texts, n)
            value, replicates = js_divergence(counts, reference), js_replicates(counts, reference, weights)
            row |= _with_interval(f"js_char_{n}gram", value, replicates, self.confidence)
            total, total_replicates = total + value, total_replicates + replicates
        return row | _with_interval(self.verdict_key, total, total_replicates, self.confidence)
