"""Metric sets: what `evaluate` computes on the samples of one row, and by which key samplers are compared.

The verdict is always a distance between distributions; a likelihood alone can be bought with entropy (arXiv
2604.02718).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from ..sampling.left_out import LEFT_OUT, is_predicted
from ..support.identity import identity
from .bootstrap import bootstrap_weights, centred_interval
from .divergence import js_divergence, js_replicates
from .diversity import conditional_entropy, distinct_n, entropy_replicates, repetition_n, sequence_entropy
from .embedding import Features, energy_distance, energy_replicates, mauve_score
from .judge import JudgeNLL, count_words, perplexity
from .ngrams import LEFT_OUT_CHARACTER, NgramCounts, ngram_counts
from .oracle import check_transition, forbidden_samples, oracle_statistics
from .tokens import decode, present


Values = dict[str, Any]


class MetricSet(Protocol):
    """What `evaluate` asks of a metric set."""

    @property
    def verdict_key(self) -> str:
        """The metric that is minimised when samplers, or temperatures of one sampler, are compared."""
        ...

    @property
    def likelihood_key(self) -> str | None:
        """The likelihood of the frontier, lower is better; None where there is none."""
        ...

    @property
    def entropy_key(self) -> str:
        """The entropy that the likelihood is read against."""
        ...

    @property
    def keys(self) -> tuple[str, ...]:
        """The names that `compute` returns. A stored row that lacks one is not reused."""
        ...

    def compute(self, sequences: torch.Tensor, texts: Sequence[str] | None = None) -> Values:
        """The metrics of `sequences` (`torch.LongTensor` of shape `(num_samples, length)`) and their decoded texts.

        Numbers; and under `NAME_replicates`, for the verdict and the frontier, lists of their bootstrap replicates,
        made with the same resamples for every row.
        """
        ...

    def verdict(self, sequences: torch.Tensor) -> float:
        """The value of `verdict_key` alone: cheap enough to try many temperatures."""
        ...


class OracleMetrics:
    """Exact metrics for samples of a first-order Markov chain; see `oracle`.

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
    likelihood_key = "cross_entropy"
    entropy_key = "bigram_entropy"

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
        """The names that `compute` returns."""
        intervals = _interval_keys("forbidden_share", "reverse_kl", "bigram_tv")
        kept = _replicate_keys("reverse_kl", "cross_entropy", "bigram_entropy")
        return (*intervals, "forbidden_samples", "unigram_entropy", "bigram_entropy", "cross_entropy", *kept)

    @property
    def fingerprint(self) -> str:
        """Short hash of the chain and the bootstrap: rows of another one are not to be compared."""
        return identity([self.transition, self.initial, self.num_resamples, self.seed, self.confidence])[:12]

    def compute(self, sequences: torch.Tensor, texts: Sequence[str] | None = None) -> Values:
        """Metrics of `sequences`, of shape `(num_samples, length)`. `texts` are not looked at.

        Raises:
            ValueError: if a state is outside the vocabulary, a mask left over for example.
        """
        weights = bootstrap_weights(len(sequences), self.num_resamples, self.seed)
        values = oracle_statistics(sequences, self.transition, initial=self.initial)
        replicates = oracle_statistics(sequences, self.transition, weights, initial=self.initial)
        row: Values = {}
        for name in ("forbidden_share", "reverse_kl", "bigram_tv"):
            row |= _with_interval(name, float(values[name]), replicates[name].numpy(), self.confidence)
        row["forbidden_samples"] = forbidden_samples(sequences, self.transition)
        row["unigram_entropy"] = conditional_entropy(sequences)
        row["bigram_entropy"] = float(values["conditional_entropy"])
        row["cross_entropy"] = float(values["cross_entropy"])
        names = {"reverse_kl": "reverse_kl", "cross_entropy": "cross_entropy", "bigram_entropy": "conditional_entropy"}
        return row | _kept({name: replicates[theirs].numpy() for name, theirs in names.items()})

    def verdict(self, sequences: torch.Tensor) -> float:
        """The value of `verdict_key` alone."""
        return float(oracle_statistics(sequences, self.transition)["reverse_kl"])


class TokenMetrics:
    """Distance of token sequences from real ones, and how varied they are. For models without texts.

    The verdict `js_token_sum` is the sum over `token_orders` of the Jensen-Shannon divergences of token n-grams from
    `reference` (nats). Intervals hold the reference fixed: they say how the value moves with the samples.

    Args:
        reference (`torch.LongTensor` of shape `(num_references, length)`): real sequences that no sampler, and not the
            floor, has seen; cut like the samples.
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

    verdict_key = "js_token_sum"
    entropy_key = "unigram_entropy"

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

    @property
    def likelihood_key(self) -> str | None:
        """None: token ids alone have no likelihood."""
        return None

    @property
    def keys(self) -> tuple[str, ...]:
        """The names that `compute` returns."""
        distances = (*(f"js_token_{n}gram" for n in self._token_references), "js_token_sum")
        embedded = (*_interval_keys("energy_distance"), "mauve") if self.features else ()
        kept = _replicate_keys(self.verdict_key, self.entropy_key)
        return (*_interval_keys(*distances), *_DIVERSITY_KEYS, *embedded[: 3 + self.mauve], *kept)

    @property
    def fingerprint(self) -> str:
        """Short hash of the reference and of how it is compared: rows of another one are not to be compared."""
        return identity(self._yardstick())[:12]

    def check_num_samples(self, num_samples: int) -> None:
        """Raises `ValueError` if `features` of so many samples could not be compared: too few references."""
        if self.features is not None and num_samples > len(self.reference):
            raise ValueError(f"`reference` has {len(self.reference)} sequences, too few beside {num_samples} samples.")

    def compute(self, sequences: torch.Tensor, texts: Sequence[str] | None = None) -> Values:
        """Metrics of `sequences`, of shape `(num_samples, length)`; entropies and divergences in nats.

        Raises:
            ValueError: if there are fewer references than samples where `features` are compared.
        """
        weights, counted = bootstrap_weights(len(sequences), self.num_resamples, self.seed), self._counted(sequences)
        row = _diversity(counted) | self._distances("js_token", counted, self._token_references, weights)
        row |= _kept({"unigram_entropy": entropy_replicates(ngram_counts(counted, 1), weights)})
        return row | self._embedded(sequences, texts or (), weights)

    def verdict(self, sequences: torch.Tensor) -> float:
        """The value of `verdict_key` alone."""
        return _js_sum(self._counted(sequences), self._token_references)

    def _counted(self, sequences: torch.Tensor) -> torch.Tensor:
        """The same with `LEFT_OUT` in the place of tokens that are never predicted."""
        never = ~is_predicted(sequences, self.never_predicted)
        return sequences.masked_fill(never, LEFT_OUT) if bool(never.any()) else sequences

    def _yardstick(self) -> Values:
        bootstrap = [self.num_resamples, self.seed, self.confidence]
        embedded = [self.features is not None, self.mauve]
        orders = list(self._token_references)
        known = {"reference": self.reference, "tokens": orders, "bootstrap": bootstrap, "embedded": embedded}
        # only these tokens of the reference: rows of before, without any, are still those
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
            row |= _with_interval(f"{prefix}_{n}gram", value, replicates, self.confidence)
            total, total_replicates = total + value, total_replicates + replicates
        row |= _with_interval(f"{prefix}_sum", total, total_replicates, self.confidence)
        return row | (_kept({self.verdict_key: total_replicates}) if self.verdict_key == f"{prefix}_sum" else {})

    def _embedded(self, sequences: torch.Tensor, texts: Sequence[str], weights: torch.Tensor) -> Values:
        if self.features is None:
            return {}
        texts = [text.replace(LEFT_OUT_CHARACTER, "") for text in texts]
        ours, theirs = self.features(sequences, texts), self._embedded_reference(len(sequences))
        value, replicates = energy_distance(ours, theirs), energy_replicates(ours, theirs, weights)
        row: Values = _with_interval("energy_distance", value, replicates, self.confidence, minimum=None)
        return row | ({"mauve": mauve_score(ours, theirs, self.seed)} if self.mauve else {})

    def _embedded_reference(self, num: int) -> torch.Tensor:
        """Features of as many references as there are samples, computed once."""
        self.check_num_samples(num)
        if num not in self._reference_features and self.features is not None:
            self._reference_features[num] = self.features(self.reference[:num], self._texts(self.reference[:num]))
        return self._reference_features[num]

    def _texts(self, sequences: torch.Tensor) -> Sequence[str]:
        return ()


class TextMetrics(TokenMetrics):
    """Distance of decoded samples from real text, diversity, and the judge's likelihood where a judge is given.

    The verdict `js_char_sum` is the sum over `orders` of the Jensen-Shannon divergences of *character* n-grams from
    the reference's (nats): it does not depend on a tokenizer.

    Args:
        tokenizer: of the sequences (`tokenizers.Tokenizer` or transformers).
        judge (`JudgeNLL`, *optional*): scores token ids where it has the same tokenizer, texts otherwise.
        reference (`torch.LongTensor` of shape `(num_references, length)`): see `TokenMetrics`.
        orders: lengths of the character n-grams.
        max_judged (`int`, *optional*): let the judge, the slowest part, score only the first so many; 256 samples
            of 128 tokens give its mean to a few hundredths of a nat. All other metrics use all samples.
        options: further arguments of `TokenMetrics`.

    Raises:
        ValueError: as `TokenMetrics`, or if `max_judged` is below 1.
    """

    verdict_key = "js_char_sum"

    def __init__(
        self,
        tokenizer: Any,
        judge: JudgeNLL | None,
        reference: torch.Tensor,
        *,
        orders: Sequence[int] = (3, 4),
        max_judged: int | None = None,
        **options: Any,
    ):
        super().__init__(reference, **options)
        if not orders:
            raise ValueError("`orders` must not be empty.")
        if max_judged is not None and max_judged < 1:
            raise ValueError(f"`max_judged` must be at least 1, got {max_judged}.")
        self.tokenizer, self.judge, self.max_judged = tokenizer, judge, max_judged
        texts = decode(tokenizer, self._counted(reference))
        self._char_references = {n: ngram_counts(texts, n) for n in orders}

    @property
    def likelihood_key(self) -> str | None:
        """The likelihood of the frontier, or None without a judge."""
        return "judge_nll" if self.judge else None

    @property
    def keys(self) -> tuple[str, ...]:
        """The names that `compute` returns."""
        distances = _interval_keys(*(f"js_char_{n}gram" for n in self._char_references), "js_char_sum")
        return (*(_JUDGE_KEYS if self.judge else ()), *super().keys, "char_trigram_entropy", *distances)

    def compute(self, sequences: torch.Tensor, texts: Sequence[str] | None = None) -> Values:
        """Metrics of `sequences`, of shape `(num_samples, length)`, decoded here where `texts` is None. All in nats.

        Raises:
            ValueError: if `texts` and `sequences` differ in number, or the judge cannot score them.
        """
        texts = decode(self.tokenizer, self._counted(sequences)) if texts is None else texts
        if len(texts) != len(sequences):
            raise ValueError(f"`texts` and `sequences` must be equally many, got {len(texts)} and {len(sequences)}.")
        weights = bootstrap_weights(len(texts), self.num_resamples, self.seed)
        row = self._likelihood(sequences[: self.max_judged], texts[: self.max_judged])
        row |= super().compute(sequences, texts) | {"char_trigram_entropy": conditional_entropy(texts, 3)}
        return row | self._distances("js_char", texts, self._char_references, weights)

    def verdict(self, sequences: torch.Tensor) -> float:
        """The value of `verdict_key` alone."""
        return _js_sum(decode(self.tokenizer, self._counted(sequences)), self._char_references)

    def _yardstick(self) -> Values:
        judge = self.judge.identity if self.judge else None
        own = {"characters": list(self._char_references), "judge": judge, "max_judged": self.max_judged}
        return super()._yardstick() | own

    def _likelihood(self, sequences: torch.Tensor, texts: Sequence[str]) -> Values:
        """By token, and by word, which makes judges of different tokenizers comparable."""
        if self.judge is None:
            return {}
        counted = self._counted(sequences)
        rows = [present(row) for row in counted] if bool((counted == LEFT_OUT).any()) else sequences
        texts = [text.replace(LEFT_OUT_CHARACTER, "") for text in texts]
        scores = self.judge.score(rows, texts, self.tokenizer)
        weights = bootstrap_weights(len(texts), self.num_resamples, self.seed).double().T
        replicates = ((weights @ scores.nll) / (weights @ scores.num_tokens.double())).numpy()
        row: Values = _with_interval("judge_nll", scores.mean, replicates, self.confidence)
        row["word_nll"] = scores.per_unit(sum(map(count_words, texts)))
        row["perplexity"], row["word_perplexity"] = perplexity(scores.mean), perplexity(row["word_nll"])
        return row | _kept({"judge_nll": replicates})

    def _texts(self, sequences: torch.Tensor) -> Sequence[str]:
        return decode(self.tokenizer, sequences)


_DIVERSITY_KEYS = (
    "sequence_entropy", "unigram_entropy", "bigram_entropy", "distinct_1", "distinct_2", "distinct_3", "distinct_4",
    "repetition_4",
)  # fmt: skip


def _diversity(sequences: torch.Tensor) -> Values:
    row: Values = {
        "sequence_entropy": sequence_entropy(sequences),
        "unigram_entropy": conditional_entropy(sequences, 1),
        "bigram_entropy": conditional_entropy(sequences, 2),
    }
    # of samples too short for an n-gram nothing can be said
    row |= {f"distinct_{n}": distinct_n(sequences, n) if sequences.shape[1] >= n else None for n in (1, 2, 3, 4)}
    return row | {"repetition_4": repetition_n(sequences, 4) if sequences.shape[1] >= 4 else None}


def _js_sum(samples: Any, references: Mapping[int, NgramCounts]) -> float:
    return sum(js_divergence(ngram_counts(samples, n), reference) for n, reference in references.items())


def _with_interval(
    name: str, value: float, replicates: np.ndarray, confidence: float, minimum: float | None = 0.0
) -> dict[str, float]:
    interval = centred_interval(value, replicates, confidence, minimum)
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _interval_keys(*names: str) -> tuple[str, ...]:
    return tuple(name + ending for name in names for ending in ("", "_low", "_high"))


def _replicate_keys(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}_replicates" for name in names)


def _kept(replicates: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """Replicates as a row stores them: to six digits."""
    return {f"{name}_replicates": [float(f"{value:.6g}") for value in values] for name, values in replicates.items()}


_JUDGE_KEYS = (*_interval_keys("judge_nll"), "word_nll", "perplexity", "word_perplexity", "judge_nll_replicates")
