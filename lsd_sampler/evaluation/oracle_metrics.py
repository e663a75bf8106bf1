"""Metric sets of exact oracles: of sets of sequences, and of tasks in which a part of a sequence is given."""

from collections.abc import Sequence
from typing import Any

import torch

from ..denoisers.markov import MarkovDenoiser
from ..denoisers.oracle import Oracle
from ..support.identity import identity
from .bootstrap import grouped_weights
from .diversity import conditional_entropy
from .metrics import MetricSet, OracleMetrics, Values, _interval_keys, _kept, _replicate_keys, _with_interval
from .validity import MAX_SPREAD, distinct_valid, sequence_l2, spread


FILLS = 2
"""How often each canvas is filled in."""


class SetMetrics:
    """Exact metrics for samples of a set of sequences; see `validity`.

    The verdict is `sequence_l2` where the set has at most 16,384 sequences and samples are independent, else
    `invalid_share`.

    Args:
        oracle ([`Oracle`]): knows the law.
        length (`int`, *optional*): of the samples; default: the oracle's. Of beginnings no spread is measured.
        group (`int`): how many samples that follow each other are fills of one canvas, and not independent. The
            spread is that of the first of each.
        num_resamples (`int`): bootstrap resamples of whole sequences, or of canvases.
        seed (`int`): of the bootstrap.
        confidence (`float`): of the intervals.
    """

    likelihood_key = None
    entropy_key = "unigram_entropy"

    def __init__(
        self,
        oracle: Oracle,
        *,
        length: int | None = None,
        group: int = 1,
        num_resamples: int = 200,
        seed: int = 0,
        confidence: float = 0.95,
    ):
        self.oracle, self.group = oracle, group
        self.num_resamples, self.seed, self.confidence = num_resamples, seed, confidence
        whole, number = length in (None, oracle.length), oracle.num_valid
        self.num_valid = number if whole and number is not None and number <= MAX_SPREAD else None
        self.has_distance = self.num_valid is not None and oracle.collision_probability is not None and group == 1

    @property
    def verdict_key(self) -> str:
        """The metric that is minimised."""
        return "sequence_l2" if self.has_distance else "invalid_share"

    @property
    def keys(self) -> tuple[str, ...]:
        """The names that `compute` returns."""
        names = ["valid_share", "invalid_share", *(["sequence_l2"] if self.has_distance else [])]
        spreads = ("spread_ratio", "spread_p_value") if self.num_valid else ()
        kept = _replicate_keys(self.verdict_key)
        return (*_interval_keys(*names), "distinct_valid", *spreads, "unigram_entropy", *kept)

    @property
    def fingerprint(self) -> str:
        """Short hash of the law and the bootstrap: rows of another one are not to be compared."""
        law = [type(self.oracle).__name__, self.oracle.length, self.num_valid, dict(self.oracle.state_dict())]
        return identity([*law, self.group, self.num_resamples, self.seed, self.confidence])[:12]

    def check_num_samples(self, num_samples: int) -> None:
        """Raises `ValueError` if there are no two samples to compare, where pairs of them are."""
        if self.has_distance and num_samples < 2:
            raise ValueError(f"`num_samples` must be at least 2 for a set of sequences, got {num_samples}.")

    def compute(self, sequences: torch.Tensor, texts: Sequence[str] | None = None) -> Values:
        """Metrics of `sequences`, of shape `(num_samples, length)`. `texts` are not looked at.

        Raises:
            ValueError: if a token is outside the vocabulary, a mask left over for example; or there is one sample only
                where pairs are compared.
        """
        self.check_num_samples(len(sequences))
        weights = grouped_weights(len(sequences), self.group, self.num_resamples, self.seed).double()
        log_p_N = self._log_prob(sequences)
        invalid_N = (log_p_N == -torch.inf).double()
        invalid, replicates = float(invalid_N.mean()), ((invalid_N @ weights) / weights.sum(0)).numpy()
        row: Values = _with_interval("valid_share", 1 - invalid, 1 - replicates, self.confidence)
        row |= _with_interval("invalid_share", invalid, replicates, self.confidence)
        row["distinct_valid"] = distinct_valid(sequences, log_p_N)
        if self.num_valid:
            found = spread(sequences[:: self.group], log_p_N[:: self.group], self.num_valid)
            row |= {"spread_ratio": found and found.ratio, "spread_p_value": found and found.p_value}
        if self.has_distance:
            replicates = self._distance(sequences, log_p_N, weights).numpy()
            distance = float(self._distance(sequences, log_p_N))
            row |= _with_interval("sequence_l2", distance, replicates, self.confidence, minimum=None)
        row["unigram_entropy"] = conditional_entropy(sequences)
        return row | _kept({self.verdict_key: replicates})

    def verdict(self, sequences: torch.Tensor) -> float:
        """The value of `verdict_key` alone."""
        log_p_N = self._log_prob(sequences)
        return float(
            self._distance(sequences, log_p_N) if self.has_distance else (log_p_N == -torch.inf).double().mean()
        )

    def _log_prob(self, sequences: torch.Tensor) -> torch.Tensor:
        if int(sequences.min()) < 0 or int(sequences.max()) >= self.oracle.vocab_size:
            raise ValueError(
                f"`sequences` must hold tokens in [0, {self.oracle.vocab_size}), a mask may be left over."
            )
        return self.oracle.log_prob(sequences).cpu()

    def _distance(
        self, sequences: torch.Tensor, log_p_N: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        return sequence_l2(sequences, log_p_N, self.oracle.collision_probability or 1.0, weights)


class FillMetrics:
    """Adds to another metric set, for canvases that are partly given, how two fills of one canvas differ, and how a
    fill differs from the truth. For exact samples both are equal on average: then fills vary as they should.

    Args:
        metrics (`MetricSet`): of whole sequences.
        canvases (`torch.LongTensor` of shape `(num_samples, length)`): what is given; each canvas `FILLS` times in a
            row.
        truth (`torch.LongTensor` of shape `(num_samples, length)`): real sequences that the canvases were made from.
        mask_token_id (`int`): marks what is to be filled in.
        num_resamples (`int`): bootstrap resamples of whole canvases.
        seed (`int`): of the bootstrap.
        confidence (`float`): of the intervals.
    """

    def __init__(
        self,
        metrics: MetricSet,
        canvases: torch.Tensor,
        truth: torch.Tensor,
        mask_token_id: int,
        *,
        num_resamples: int = 200,
        seed: int = 0,
        confidence: float = 0.95,
    ):
        self.metrics, self.canvases, self.truth = metrics, canvases, truth
        self.masked = canvases == mask_token_id
        self.num_resamples, self.seed, self.confidence = num_resamples, seed, confidence

    @property
    def verdict_key(self) -> str:
        """That of the metrics of whole sequences."""
        return self.metrics.verdict_key

    @property
    def likelihood_key(self) -> str | None:
        """That of the metrics of whole sequences."""
        return self.metrics.likelihood_key

    @property
    def entropy_key(self) -> str:
        """That of the metrics of whole sequences."""
        return self.metrics.entropy_key

    @property
    def keys(self) -> tuple[str, ...]:
        """The names that `compute` returns."""
        return (*self.metrics.keys, *_interval_keys("fills_differ", "fill_error"))

    @property
    def fingerprint(self) -> str:
        """Short hash of the metrics and the canvases."""
        own = [self.canvases, self.truth, self.num_resamples, self.seed, self.confidence]
        return identity([getattr(self.metrics, "fingerprint", None), *own])[:12]

    def check_num_samples(self, num_samples: int) -> None:
        """Raises `ValueError` unless there is a canvas for each sample."""
        if num_samples != len(self.canvases):
            raise ValueError(f"`num_samples` must be that of the canvases, {len(self.canvases)}, got {num_samples}.")

    def compute(self, sequences: torch.Tensor, texts: Sequence[str] | None = None) -> Values:
        """Metrics of fills, of shape `(num_samples, length)`, in the order of the canvases."""
        self.check_num_samples(len(sequences))
        even = len(sequences) // FILLS * FILLS
        row = self.metrics.compute(sequences, texts)
        first, second = ((sequences[place:even:FILLS], self.masked[place:even:FILLS]) for place in range(FILLS))
        row |= self._share("fills_differ", (first[0] != second[0]) & first[1], first[1], 1)
        return row | self._share("fill_error", (sequences != self.truth) & self.masked, self.masked, FILLS)

    def verdict(self, sequences: torch.Tensor) -> float:
        """The value of `verdict_key` alone."""
        return self.metrics.verdict(sequences)

    def _share(self, name: str, differs: torch.Tensor, masked: torch.Tensor, group: int) -> Values:
        """The share of the masked positions at which something differs, with an interval."""
        if not len(masked):
            return dict.fromkeys(_interval_keys(name))
        weights = grouped_weights(len(masked), group, self.num_resamples, self.seed).double()
        differ_N, masked_N = differs.sum(1).double(), masked.sum(1).double()
        replicates = ((differ_N @ weights) / (masked_N @ weights)).numpy()
        return _with_interval(name, float(differ_N.sum() / masked_N.sum()), replicates, self.confidence)


def oracle_metrics(
    oracle: Oracle, num_samples: int, *, length: int | None = None, seed: int = 0, **options: Any
) -> MetricSet:
    """The metrics that fit an oracle: of a chain or of a set; and of fills, where it has `clues`.

    Args:
        oracle ([`Oracle`]): knows the law.
        num_samples (`int`): how many are judged. With `clues`, each canvas is filled in twice.
        length (`int`, *optional*): of the samples; default: the oracle's.
        seed (`int`): of the canvases.
        options: `num_resamples` and `confidence` of the metric sets.

    Raises:
        ValueError: if `clues` leave nothing to fill in.
    """
    group = FILLS if oracle.clues else 1
    metrics: MetricSet
    if oracle.memory is None:
        metrics = SetMetrics(oracle, length=length, group=group, **options)
    elif isinstance(oracle, MarkovDenoiser):
        metrics = OracleMetrics(oracle.transition.cpu(), initial=oracle.initial.cpu(), group=group, **options)
    else:
        joint = oracle.ngram_law(oracle.memory + 1, length).cpu().flatten(0, -2)
        contexts = joint.sum(1)
        # what no transition starts from has any law
        law = torch.where(contexts[:, None] > 0, joint / contexts[:, None], 1 / joint.shape[1])
        metrics = OracleMetrics(law, contexts=contexts, group=group, **options)
    if not oracle.clues:
        return metrics
    num_canvases = -(-num_samples // FILLS)
    drawn = oracle.canvases(num_canvases, torch.Generator().manual_seed(seed), length)
    canvases, truth = (x.cpu().repeat_interleave(FILLS, dim=0)[:num_samples] for x in drawn)
    return FillMetrics(metrics, canvases, truth, oracle.vocab_size, **options)


def exact_samples(
    oracle: Oracle, metrics: MetricSet, num_samples: int, length: int | None = None, seed: int = 0
) -> torch.Tensor:
    """What an exact sampler makes of the same task: `(num_samples, length)`."""
    generator = torch.Generator().manual_seed(seed)
    canvases = getattr(metrics, "canvases", None)
    made = oracle.sample(num_samples, generator)[:, :length] if canvases is None else oracle.fill(canvases, generator)
    return made.cpu()
