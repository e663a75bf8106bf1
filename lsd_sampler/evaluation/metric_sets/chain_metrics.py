"""The metric set of chains: exact distances between the samples' transitions and the chain's; see `oracle`."""

from collections.abc import Sequence

import torch

from ...support.identity import identity
from ..bootstrap import grouped_weights, kept_replicates, with_interval
from ..columns import Metric, with_ends
from ..diversity import BIGRAM_ENTROPY, UNIGRAM_ENTROPY, conditional_entropy
from ..transitions import check_transition, forbidden_samples, kl_rate_at_distance, longest, oracle_statistics
from .metric_set import Layout, MetricSet, Values


_WITH_INTERVALS = (
    Metric(
        "forbidden_share",
        "forbidden",
        "Share of transitions that the chain can never make; on countdown, the share of wrong tokens. 0 is right.",
        lower_is_better=True,
        interval=True,
    ),
    Metric(
        "reverse_kl",
        "reverse KL",
        "Divergence of the samples' transitions from the chain's, in nats per transition: cross-entropy minus the "
        "samples' own entropy, so it cannot be bought with entropy. Lower is better; forbidden transitions are "
        "charged 27.6 nats.",
        lower_is_better=True,
        interval=True,
        short="",
    ),
    Metric(
        "bigram_tv",
        "bigram TV",
        "Total variation between the law of adjacent pairs and the chain's, from 0 (equal) to 1.",
        lower_is_better=True,
        interval=True,
    ),
    Metric(
        "full_kl_rate",
        "full KL rate",
        "The reverse KL with forbidden transitions charged 69 nats, as in published tables of oracles. In a chain "
        "of second order or with hidden states, a transition is from two tokens to the next; what lies further back "
        "is not seen. It grows with the number of possible transitions over that of samples: read it beside real "
        "data.",
        lower_is_better=True,
        interval=True,
        short="KL rate",
    ),
    Metric(
        "full_tv_rate",
        "full TV rate",
        "Total variation between the samples' law of a token given those before it and the chain's, averaged over the "
        "preceding tokens of the samples. It is not 0 for real data either.",
        lower_is_better=True,
        interval=True,
        short="TV rate",
    ),
)
FORBIDDEN_SAMPLES = Metric(
    "forbidden_samples",
    "wrong samples",
    "Share of samples with at least one forbidden transition. 0 is right.",
    lower_is_better=True,
)
CROSS_ENTROPY = Metric(
    "cross_entropy",
    "cross-entropy",
    "Negative log-likelihood of a transition under the chain, in nats. It means nothing without the entropy "
    "beside it.",
)
DISTANCES = (2, 4, 8, 16, 64)
FAR_RATES = tuple(
    Metric(
        f"kl_rate_at_{distance}",
        f"KL rate at {distance}",
        f"The full KL rate of tokens {distance} places apart. Samples may have the right neighbours and still be "
        "wrong further away. Only for chains of first order.",
        lower_is_better=True,
    )
    for distance in DISTANCES
)
_LAYOUT = Layout(
    table=("forbidden_share", *with_ends("reverse_kl"), "bigram_tv", "bigram_entropy"),
    details=(
        "temperature", *with_ends("full_kl_rate"), "full_tv_rate", *(metric.key for metric in FAR_RATES),
        "forbidden_samples", "cross_entropy",
        "bigram_entropy", "unigram_entropy", "network_calls",
    ),
    drawn=("reverse_kl", "forbidden_share"),
)  # fmt: skip


class OracleMetrics(MetricSet):
    """Exact metrics for samples of a Markov chain; see `oracle`.

    Args:
        transition, initial, contexts: as for [`oracle_statistics`].
        group (`int`): how many consecutive samples are fills of one canvas, and so not independent.
        num_resamples (`int`): bootstrap resamples of whole sequences.
        seed (`int`): of the bootstrap.
        confidence (`float`): of the intervals.

    Raises:
        ValueError: if `transition` is not a transition matrix.
    """

    metrics = (*_WITH_INTERVALS, *FAR_RATES, FORBIDDEN_SAMPLES, CROSS_ENTROPY, BIGRAM_ENTROPY, UNIGRAM_ENTROPY)
    verdict_key = "reverse_kl"
    likelihood_key = "cross_entropy"
    entropy_key = "bigram_entropy"
    replicates = ("reverse_kl", "cross_entropy", "bigram_entropy")

    def __init__(
        self,
        transition: torch.Tensor,
        *,
        initial: torch.Tensor | None = None,
        contexts: torch.Tensor | None = None,
        group: int = 1,
        num_resamples: int = 200,
        seed: int = 0,
        confidence: float = 0.95,
    ):
        self.transition, self.initial, self.contexts = check_transition(transition), initial, contexts
        self.group = group
        self.num_resamples, self.seed, self.confidence = num_resamples, seed, confidence

    @property
    def fingerprint(self) -> str:
        """Short hash of the chain and the bootstrap: rows of another one are not to be compared."""
        law = [self.transition, self.initial, self.contexts]
        return identity([*law, self.group, self.num_resamples, self.seed, self.confidence])[:12]

    def compute(self, sequences: torch.Tensor, texts: Sequence[str] | None = None) -> Values:
        """Metrics of `sequences`, of shape `(num_samples, length)`. `texts` is ignored.

        Raises:
            ValueError: if a state is outside the vocabulary, such as a leftover mask.
        """
        weights = grouped_weights(len(sequences), self.group, self.num_resamples, self.seed)
        law: Values = {"initial": self.initial, "contexts": self.contexts}
        values = oracle_statistics(sequences, self.transition, **law)
        replicates = oracle_statistics(sequences, self.transition, weights, **law)
        row: Values = {}
        for key in (metric.key for metric in _WITH_INTERVALS):
            row |= with_interval(key, float(values[key]), replicates[key].numpy(), self.confidence)
        for metric, distance in zip(FAR_RATES, DISTANCES, strict=True):
            row[metric.key] = self._at_distance(sequences, distance)
        row["forbidden_samples"] = forbidden_samples(sequences, self.transition)
        row["unigram_entropy"] = conditional_entropy(sequences)
        row["bigram_entropy"] = float(values["conditional_entropy"])
        row["cross_entropy"] = float(values["cross_entropy"])
        names = {"reverse_kl": "reverse_kl", "cross_entropy": "cross_entropy", "bigram_entropy": "conditional_entropy"}
        return row | kept_replicates({name: replicates[theirs].numpy() for name, theirs in names.items()})

    def _at_distance(self, sequences: torch.Tensor, distance: int) -> float | None:
        """None in a chain of another order, and where no two tokens are so far apart."""
        if self.transition.shape[0] != self.transition.shape[1] or distance >= longest(sequences):
            return None
        return kl_rate_at_distance(sequences, self.transition, distance)

    def verdict(self, sequences: torch.Tensor) -> float:
        """The value of `verdict_key` alone."""
        return float(oracle_statistics(sequences, self.transition, contexts=self.contexts)["reverse_kl"])

    def layout(self) -> Layout:
        """The divergence of transitions, then the rates; for canvases, also how their fills vary."""
        return _LAYOUT
