"""The metric set of token sequences: their distance from real ones, and how varied they are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ...sampling.left_out import LEFT_OUT, is_predicted
from ...support.identity import identity
from ..bootstrap import bootstrap_weights, kept_replicates, with_interval
from ..columns import Metric, with_ends
from ..divergence import js_divergence, js_replicates, js_sum
from ..diversity import DIVERSITY, diversity, entropy_replicates
from ..embedding import Features, energy_distance, energy_replicates, mauve_score
from ..ngrams import LEFT_OUT_CHARACTER, NgramCounts, ngram_counts
from .metric_set import Layout, MetricSet, Values


ENERGY_DISTANCE = Metric(
    "energy_distance",
    "energy dist.",
    "Energy distance to real data in an embedding space, in its unit, without bias: it scatters around 0 "
    "where the laws are equal.",
    lower_is_better=True,
    interval=True,
    short="energy",
)
MAUVE = Metric(
    "mauve",
    "MAUVE",
    "Overlap of samples and real data in an embedding space, from 0 to 1. Higher is better.",
    lower_is_better=False,
)
_VARIETY = (
    "unigram_entropy", "sequence_entropy", "bigram_entropy", "distinct_1", "distinct_2", "distinct_3", "distinct_4",
    "repetition_4",
)  # fmt: skip


def token_ngrams(orders: Sequence[int]) -> tuple[Metric, ...]:
    """The divergence of token n-grams of each of these lengths, and their sum."""
    names = {1: "tokens", 2: "token pairs"} | {n: f"token {n}-grams" for n in orders if n > 2}
    each = [
        Metric(
            f"js_token_{n}gram",
            f"JS {names[n]}",
            f"Jensen-Shannon divergence between the {names[n]} of the samples and of the reference, in nats.",
            lower_is_better=True,
            interval=True,
        )
        for n in orders
    ]
    return (*each, sum_of("js_token_sum", orders, "The verdict for tokens"))


def sum_of(key: str, orders: Sequence[int], what: str) -> Metric:
    """The sum of the divergences of n-grams of these lengths."""
    every = "both" if len(orders) == 2 else "all"
    heading, meaning = f"JS {'+'.join(map(str, orders))}", f"{what}: the sum of {every} divergences. Lower is better."
    return Metric(key, heading, meaning, lower_is_better=True, interval=True, short="sum")


class TokenMetrics(MetricSet):
    """Distance of token sequences from real ones, and how varied they are. For models that do not make text.

    The verdict `js_token_sum` is the sum over `token_orders` of the Jensen-Shannon divergences of token n-grams from
    `reference` (nats). Intervals hold the reference fixed: they say how the value moves with the samples.

    Args:
        reference (`torch.LongTensor` of shape `(num_references, length)`): real sequences that neither a sampler nor
            the floor has seen, cut like the samples.
        token_orders: lengths of the token n-grams.
        never_predicted (sequence of `int`): tokens that the model never predicts, and real data may hold (`[UNK]`):
            they are left out of everything but `features`.
        features (*optional*): an embedding space, as `denoiser_features` or a judge's; adds the energy distance to as
            many references as there are samples.
        mauve (`bool`): adds MAUVE in that space.
        num_resamples (`int`): bootstrap resamples of whole samples.
        seed (`int`): of the bootstrap.
        confidence (`float`): of the intervals.

    Raises:
        ValueError: if `reference` is empty or shorter than an n-gram, or `mauve` is asked for without `features`.
    """

    metrics = (*token_ngrams((1, 2)), *DIVERSITY, ENERGY_DISTANCE, MAUVE)
    verdict_key = "js_token_sum"
    entropy_key = "unigram_entropy"
    replicates = ("js_token_sum", "unigram_entropy")

    def __init__(
        self,
        reference: torch.Tensor,
        *,
        token_orders: Sequence[int] = (1, 2),
        never_predicted: Sequence[int] = (),
        features: Features | None = None,
        mauve: bool = False,
        num_resamples: int = 200,
        seed: int = 0,
        confidence: float = 0.95,
    ):
        if not len(reference) or not token_orders:
            raise ValueError("`reference` and `token_orders` must not be empty.")
        if mauve and features is None:
            raise ValueError("`mauve` needs `features`.")
        self.reference, self.features, self.mauve = reference, features, mauve
        self.never_predicted = sorted(never_predicted)
        self.num_resamples, self.seed, self.confidence = num_resamples, seed, confidence
        self._token_references = {n: ngram_counts(self._counted(reference), n) for n in token_orders}
        self._reference_features: dict[int, torch.Tensor] = {}
        embedded = [*([ENERGY_DISTANCE] if features else []), *([MAUVE] if mauve else [])]
        self.metrics = (*token_ngrams(tuple(self._token_references)), *DIVERSITY, *embedded)

    @property
    def fingerprint(self) -> str:
        """Short hash of the reference and of how it is compared: rows of another one are not to be compared."""
        return identity(self._yardstick())[:12]

    def check_num_samples(self, num_samples: int) -> None:
        """Raises `ValueError` if there are too few references to compare the `features` of `num_samples` samples."""
        if self.features is not None and num_samples > len(self.reference):
            raise ValueError(f"`reference` has {len(self.reference)} sequences, too few for {num_samples} samples.")

    def compute(self, sequences: torch.Tensor, texts: Sequence[str] | None = None) -> Values:
        """Metrics of `sequences`, of shape `(num_samples, length)`; entropies and divergences in nats.

        Raises:
            ValueError: if there are fewer references than samples where `features` are compared.
        """
        weights, counted = bootstrap_weights(len(sequences), self.num_resamples, self.seed), self._counted(sequences)
        row = diversity(counted) | self._distances("js_token", counted, self._token_references, weights)
        row |= kept_replicates({"unigram_entropy": entropy_replicates(ngram_counts(counted, 1), weights)})
        return row | self._embedded(sequences, texts or (), weights)

    def verdict(self, sequences: torch.Tensor) -> float:
        """The value of `verdict_key` alone."""
        return js_sum(self._counted(sequences), self._token_references)

    def layout(self) -> Layout:
        """The distance from the reference, then variety."""
        ngrams = tuple(f"js_token_{n}gram" for n in self._token_references)
        settings = ("temperature", "guidance_scale")
        table = (*settings, "unigram_entropy", "bigram_entropy", *ngrams, *with_ends("js_token_sum"))
        more = (*ngrams, *with_ends("energy_distance"), "mauve", "network_calls")
        return Layout(table, (*_VARIETY, *more), ngrams)

    def _counted(self, sequences: torch.Tensor) -> torch.Tensor:
        """The sequences with `LEFT_OUT` in place of tokens that are never predicted."""
        never = ~is_predicted(sequences, self.never_predicted)
        return sequences.masked_fill(never, LEFT_OUT) if bool(never.any()) else sequences

    def _yardstick(self) -> Values:
        bootstrap = [self.num_resamples, self.seed, self.confidence]
        embedded = [self.features is not None, self.mauve]
        orders = list(self._token_references)
        known = {"reference": self.reference, "tokens": orders, "bootstrap": bootstrap, "embedded": embedded}
        # only the tokens that the reference holds: without any, the hash of older rows stays valid
        found = [i for i in self.never_predicted if bool((self.reference == i).any())]
        return known | ({"left_out": found} if found else {})

    def _distances(
        self, prefix: str, samples: Any, references: Mapping[int, NgramCounts], weights: torch.Tensor
    ) -> Values:
        """Each divergence and their sum, with intervals; replicates of the sum where it is the verdict."""
        row: Values = {}
        total, total_replicates = 0.0, np.zeros(self.num_resamples)
        for n, reference in references.items():
            counts = ngram_counts(samples, n)
            value, replicates = js_divergence(counts, reference), js_replicates(counts, reference, weights)
            row |= with_interval(f"{prefix}_{n}gram", value, replicates, self.confidence)
            total, total_replicates = total + value, total_replicates + replicates
        row |= with_interval(f"{prefix}_sum", total, total_replicates, self.confidence)
        return row | (
            kept_replicates({self.verdict_key: total_replicates}) if self.verdict_key == f"{prefix}_sum" else {}
        )

    def _embedded(self, sequences: torch.Tensor, texts: Sequence[str], weights: torch.Tensor) -> Values:
        if self.features is None:
            return {}
        texts = [text.replace(LEFT_OUT_CHARACTER, "") for text in texts]
        ours, theirs = self.features(sequences, texts), self._embedded_reference(len(sequences))
        value, replicates = energy_distance(ours, theirs), energy_replicates(ours, theirs, weights)
        row: Values = with_interval("energy_distance", value, replicates, self.confidence, minimum=None)
        return row | ({"mauve": mauve_score(ours, theirs, self.seed)} if self.mauve else {})

    def _embedded_reference(self, num: int) -> torch.Tensor:
        """Features of as many references as there are samples, computed once."""
        self.check_num_samples(num)
        if num not in self._reference_features and self.features is not None:
            self._reference_features[num] = self.features(self.reference[:num], self._texts(self.reference[:num]))
        return self._reference_features[num]

    def _texts(self, sequences: torch.Tensor) -> Sequence[str]:
        return ()
