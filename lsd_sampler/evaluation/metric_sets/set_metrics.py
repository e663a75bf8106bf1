"""The metric set of sets of sequences: how many samples are possible, and how those are spread; see `validity`."""

from collections.abc import Sequence

import torch

from ...denoisers.oracle import Oracle
from ...support.identity import identity
from ..bootstrap import grouped_weights, kept_replicates, with_interval
from ..columns import Metric, with_ends
from ..diversity import UNIGRAM_ENTROPY, conditional_entropy
from ..validity import MAX_SPREAD, distinct_valid, sequence_l2, spread
from .metric_set import Layout, MetricSet, Values


VALID_SHARE = Metric(
    "valid_share",
    "valid",
    "Share of samples that are possible under the exact law. 1 is right.",
    lower_is_better=False,
    interval=True,
)
INVALID_SHARE = Metric(
    "invalid_share",
    "invalid",
    "Share of samples that are impossible under the exact law. 0 is right.",
    lower_is_better=True,
    interval=True,
)
DISTINCT_VALID = Metric(
    "distinct_valid",
    "distinct valid",
    "How many different possible sequences were made. It should be that of real data.",
)
SPREAD = (
    Metric(
        "spread_ratio",
        "spread",
        "Pearson's chi-square of the possible samples over all possible sequences, by its degrees of freedom: 1 on "
        "average where they are spread as real ones, more where some come too often.",
    ),
    Metric(
        "spread_p_value",
        "spread p",
        "How often an equal number of real samples is spread less evenly than that by chance. Only with at least 5 "
        "possible samples for each possible sequence.",
    ),
)
SEQUENCE_L2 = Metric(
    "sequence_l2",
    "L2 distance",
    "The verdict for sets: squared distance between the law of whole samples and the exact one, over the "
    "latter's square norm, without bias. (1 - valid)^2 where possible samples are spread as they should be, more "
    "where they are not. It scatters around 0 for real data.",
    lower_is_better=True,
    interval=True,
    short="L2",
)
_SPREAD_KEYS = ("distinct_valid", "spread_ratio", "spread_p_value")
_WITH_DISTANCE = Layout(
    table=(*with_ends("valid_share"), *_SPREAD_KEYS, *with_ends("sequence_l2")),
    details=("temperature", "invalid_share", "unigram_entropy", "network_calls"),
    drawn=("invalid_share", "sequence_l2"),
)
_BY_VALIDITY = Layout(
    table=("valid_share", *with_ends("invalid_share"), *_SPREAD_KEYS, "fills_differ", "fill_error"),
    details=(
        "temperature", "invalid_share", *with_ends("fills_differ", "fill_error"), "unigram_entropy", "network_calls",
    ),
    drawn=("invalid_share", "fills_differ"),
)  # fmt: skip


class SetMetrics(MetricSet):
    """Exact metrics for samples of a set of sequences; see `validity`.

    The verdict is `sequence_l2` where the set has at most 16,384 sequences and samples are independent draws of the
    law, else `invalid_share`.

    Args:
        oracle ([`Oracle`]): knows the law.
        length (`int`, *optional*): of the samples; default: the oracle's. The spread is not measured for shorter ones.
        group (`int`): how many consecutive samples are fills of one canvas, and so not independent. The spread is
            that of the first fill of each canvas.
        given (`bool`): whether the samples fill in canvases that are no random parts of the law's own sequences. Then
            not even exact samples have the law, and neither the distance nor the spread is measured.
        num_resamples (`int`): bootstrap resamples of whole sequences, or of canvases.
        seed (`int`): of the bootstrap.
        confidence (`float`): of the intervals.
    """

    metrics = (VALID_SHARE, INVALID_SHARE, SEQUENCE_L2, DISTINCT_VALID, *SPREAD, UNIGRAM_ENTROPY)
    verdict_key = "sequence_l2"
    entropy_key = "unigram_entropy"

    def __init__(
        self,
        oracle: Oracle,
        *,
        length: int | None = None,
        group: int = 1,
        given: bool = False,
        num_resamples: int = 200,
        seed: int = 0,
        confidence: float = 0.95,
    ):
        self.oracle, self.group, self.given = oracle, group, given
        self.num_resamples, self.seed, self.confidence = num_resamples, seed, confidence
        whole, number = length in (None, oracle.length) and not given, oracle.num_valid
        self.num_valid = number if whole and number is not None and number <= MAX_SPREAD else None
        self.has_distance = self.num_valid is not None and oracle.collision_probability is not None and group == 1
        if not self.has_distance:
            self.verdict_key = "invalid_share"
        self.replicates = (self.verdict_key,)
        left_out = [*([] if self.has_distance else [SEQUENCE_L2]), *([] if self.num_valid else SPREAD)]
        self.metrics = tuple(metric for metric in type(self).metrics if metric not in left_out)

    @property
    def fingerprint(self) -> str:
        """Short hash of the law and the bootstrap: rows of another one are not to be compared."""
        law = [type(self.oracle).__name__, self.oracle.length, self.num_valid, dict(self.oracle.state_dict())]
        how = [self.group, *(["given"] if self.given else []), self.num_resamples, self.seed, self.confidence]
        return identity([*law, *how])[:12]

    def check_num_samples(self, num_samples: int) -> None:
        """Raises `ValueError` if pairs of samples are compared and there are fewer than two samples."""
        if self.has_distance and num_samples < 2:
            raise ValueError(f"`num_samples` must be at least 2 for a set of sequences, got {num_samples}.")

    def compute(self, sequences: torch.Tensor, texts: Sequence[str] | None = None) -> Values:
        """Metrics of `sequences`, of shape `(num_samples, length)`. `texts` is ignored.

        Raises:
            ValueError: if a token is outside the vocabulary, such as a leftover mask; or if pairs are compared and
                there is only one sample.
        """
        self.check_num_samples(len(sequences))
        weights = grouped_weights(len(sequences), self.group, self.num_resamples, self.seed).double()
        log_p_N = self._log_prob(sequences)
        invalid_N = (log_p_N == -torch.inf).double()
        invalid, replicates = float(invalid_N.mean()), ((invalid_N @ weights) / weights.sum(0)).numpy()
        row: Values = with_interval("valid_share", 1 - invalid, 1 - replicates, self.confidence)
        row |= with_interval("invalid_share", invalid, replicates, self.confidence)
        row["distinct_valid"] = distinct_valid(sequences, log_p_N)
        if self.num_valid:
            found = spread(sequences[:: self.group], log_p_N[:: self.group], self.num_valid)
            row |= {"spread_ratio": found and found.ratio, "spread_p_value": found and found.p_value}
        if self.has_distance:
            replicates = self._distance(sequences, log_p_N, weights).numpy()
            distance = float(self._distance(sequences, log_p_N))
            row |= with_interval("sequence_l2", distance, replicates, self.confidence, minimum=None)
        row["unigram_entropy"] = conditional_entropy(sequences)
        return row | kept_replicates({self.verdict_key: replicates})

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

    def layout(self) -> Layout:
        """The distance from the law, or the share of impossible samples; for canvases, also how their fills vary."""
        return _WITH_DISTANCE if self.has_distance else _BY_VALIDITY
