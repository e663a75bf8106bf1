"""The metric set of canvases that are partly given: how fills vary, besides the metrics of whole sequences."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...support.identity import identity
from ..bootstrap import grouped_weights, with_interval
from ..columns import Metric, with_ends
from .metric_set import Layout, MetricSet, Values


FILLS = 2
"""How often each canvas is filled in."""
FILLS_DIFFER = Metric(
    "fills_differ",
    "fills differ",
    "Share of the positions to be filled in at which two fills of one canvas differ. It should be as large as the "
    "share at which a fill differs from the truth: less is lost variety.",
    interval=True,
    short="differ",
)
FILL_ERROR = Metric(
    "fill_error",
    "fill / truth",
    "Share of the positions to be filled in at which a fill differs from the real sequence.",
    interval=True,
    short="error",
)


class FillMetrics(MetricSet):
    """Adds to another metric set, for canvases that are partly given, how two fills of one canvas differ, and how a
    fill differs from the truth. For exact samples both are equal on average: then fills vary as they should.

    Args:
        metrics (`MetricSet`): of whole sequences.
        canvases (`torch.LongTensor` of shape `(num_samples, length)`): what is given; each canvas `FILLS` times in a
            row.
        truth (`torch.LongTensor` of shape `(num_samples, length)`): real sequences that the canvases were made from.
        mask_token_id (`int`): marks the positions to fill in.
        num_resamples (`int`): bootstrap resamples of whole canvases.
        seed (`int`): of the bootstrap.
        confidence (`float`): of the intervals.
    """

    metrics = (FILLS_DIFFER, FILL_ERROR)

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
        self.whole, self.canvases, self.truth = metrics, canvases, truth
        self.metrics = (*metrics.metrics, *type(self).metrics)
        self.verdict_key, self.replicates = metrics.verdict_key, metrics.replicates
        self.verdict_words = metrics.verdict_words
        self.likelihood_key, self.entropy_key = metrics.likelihood_key, metrics.entropy_key
        self.tokenizer, self.judge = metrics.tokenizer, metrics.judge
        self.masked = canvases == mask_token_id
        self.num_resamples, self.seed, self.confidence = num_resamples, seed, confidence

    @property
    def fingerprint(self) -> str:
        """Short hash of the metrics and the canvases."""
        own = [self.canvases, self.truth, self.num_resamples, self.seed, self.confidence]
        return identity([self.whole.fingerprint, *own])[:12]

    def check_num_samples(self, num_samples: int) -> None:
        """Raises `ValueError` unless there is a canvas for each sample."""
        if num_samples != len(self.masked):
            raise ValueError(f"`num_samples` must be that of the canvases, {len(self.masked)}, got {num_samples}.")

    def compute(self, sequences: torch.Tensor, texts: Sequence[str] | None = None) -> Values:
        """Metrics of fills, of shape `(num_samples, length)`, in the order of the canvases."""
        self.check_num_samples(len(sequences))
        even = len(sequences) // FILLS * FILLS
        row = self.whole.compute(sequences, texts)
        first, second = ((sequences[place:even:FILLS], self.masked[place:even:FILLS]) for place in range(FILLS))
        row |= self._share("fills_differ", (first[0] != second[0]) & first[1], first[1], 1)
        return row | self._share("fill_error", (sequences != self.truth) & self.masked, self.masked, FILLS)

    def verdict(self, sequences: torch.Tensor) -> float:
        """The value of `verdict_key` alone."""
        return self.whole.verdict(sequences)

    def derived(self, row: Mapping[str, Any]) -> Values:
        """The derived values of the metrics of whole sequences."""
        return self.whole.derived(row)

    def layout(self) -> Layout:
        """The layout of the metrics of whole sequences, with the fills as details unless it names them."""
        layout = self.whole.layout()
        if FILLS_DIFFER.key in (*layout.table, *layout.details):
            return layout
        return layout._replace(details=(*layout.details, *with_ends(FILLS_DIFFER.key, FILL_ERROR.key)))

    def _share(self, name: str, differs: torch.Tensor, masked: torch.Tensor, group: int) -> Values:
        """The share of the masked positions at which something differs, with an interval."""
        if not len(masked):
            return dict.fromkeys(with_ends(name))
        weights = grouped_weights(len(masked), group, self.num_resamples, self.seed).double()
        differ_N, masked_N = differs.sum(1).double(), masked.sum(1).double()
        replicates = ((differ_N @ weights) / (masked_N @ weights)).numpy()
        return with_interval(name, float(differ_N.sum() / masked_N.sum()), replicates, self.confidence)
