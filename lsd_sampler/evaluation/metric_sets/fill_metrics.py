"""The metric set of canvases that are partly given: how fills vary, besides the metrics of whole sequences."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...sampling.fills import differing, fill_pairs
from ...sampling.left_out import LEFT_OUT
from ...support.identity import identity
from ..bootstrap import bootstrap_weights, with_interval
from ..columns import Metric, with_ends
from .metric_set import Layout, MetricSet, Values


FILLS = 2
"""How often each canvas of an oracle is filled in."""
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

    Samples with equal canvases are taken in pairs, in their order. No network call is made for that.

    Args:
        metrics (`MetricSet`): of whole sequences.
        canvases (`torch.LongTensor` of shape `(num_samples, length)`): what each sample fills in, each canvas at least
            twice; shorter ones are filled up with `LEFT_OUT` (-1).
        truth (`torch.LongTensor` of shape `(num_samples, length)`, *optional*): real sequences that the canvases were
            made from; `LEFT_OUT` where that is unknown.
        mask_token_id (`int`): marks the positions to fill in.
        num_resamples (`int`): bootstrap resamples of whole pairs.
        seed (`int`): of the bootstrap.
        confidence (`float`): of the intervals.

    Raises:
        ValueError: if `truth` has another shape than `canvases`.
    """

    metrics = (FILLS_DIFFER, FILL_ERROR)

    def __init__(
        self,
        metrics: MetricSet,
        canvases: torch.Tensor,
        truth: torch.Tensor | None,
        mask_token_id: int,
        *,
        num_resamples: int = 200,
        seed: int = 0,
        confidence: float = 0.95,
    ):
        if truth is not None and truth.shape != canvases.shape:
            shapes = f"{tuple(truth.shape)} and {tuple(canvases.shape)}"
            raise ValueError(f"`truth` must have the shape of `canvases`, got {shapes}.")
        self.whole, self.canvases, self.truth = metrics, canvases, truth
        self.masked = canvases == mask_token_id
        known = self.masked if truth is None else self.masked & (truth != LEFT_OUT)
        self.known = known if truth is not None and bool(known.any()) else None
        pairs = fill_pairs(canvases)
        self.pairs = pairs[self.masked[pairs[:, 0]].any(1)]
        own = (*([FILLS_DIFFER] if len(self.pairs) else []), *([] if self.known is None else [FILL_ERROR]))
        self.metrics = (*metrics.metrics, *own)
        self.verdict_key, self.replicates = metrics.verdict_key, metrics.replicates
        self.verdict_words = metrics.verdict_words
        self.likelihood_key, self.entropy_key = metrics.likelihood_key, metrics.entropy_key
        self.tokenizer, self.judge = metrics.tokenizer, metrics.judge
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
        self.whole.check_num_samples(num_samples)

    def compute(self, sequences: torch.Tensor, texts: Sequence[str] | None = None) -> Values:
        """Metrics of fills, of shape `(num_samples, length)`, in the order of the canvases."""
        self.check_num_samples(len(sequences))
        row = self.whole.compute(sequences, texts)
        if len(self.pairs):
            first_P, second_P = self.pairs.T
            counts = differing(sequences[first_P], sequences[second_P], self.masked[first_P])
            row |= self._share(FILLS_DIFFER.key, *counts, torch.arange(len(self.pairs)))
        if self.truth is not None and self.known is not None:
            row |= self._share(FILL_ERROR.key, *differing(sequences, self.truth, self.known), self._units())
        return row

    def verdict(self, sequences: torch.Tensor) -> float:
        """The value of `verdict_key` alone."""
        return self.whole.verdict(sequences)

    def of_calls(self, calls: torch.Tensor) -> Values:
        """The calls of the metrics of whole sequences, by their resamples."""
        return self.whole.of_calls(calls)

    def derived(self, row: Mapping[str, Any]) -> Values:
        """The derived values of the metrics of whole sequences."""
        return self.whole.derived(row)

    def layout(self) -> Layout:
        """The layout of the metrics of whole sequences, the fills at the end of the table, unless it names them."""
        layout = self.whole.layout()
        if FILLS_DIFFER.key in layout.table:
            return layout
        own = (FILLS_DIFFER.key, FILL_ERROR.key)
        return layout._replace(table=(*layout.table, *own), details=(*layout.details, *with_ends(*own)))

    def _units(self) -> torch.Tensor:
        """What is drawn again as one: each sample's pair, by its number; a sample without one for itself."""
        unit_N = torch.full((len(self.masked),), -1)
        unit_N[self.pairs] = torch.arange(len(self.pairs))[:, None]
        alone_N = unit_N < 0
        unit_N[alone_N] = len(self.pairs) + torch.arange(int(alone_N.sum()))
        return unit_N

    def _share(self, name: str, differ_N: torch.Tensor, masked_N: torch.Tensor, unit_N: torch.Tensor) -> Values:
        """The share of the masked positions at which something differs, with an interval."""
        weights = bootstrap_weights(int(unit_N.max()) + 1, self.num_resamples, self.seed)[unit_N].double()
        # a resample may hold only fills whose truth is unknown
        replicates = ((differ_N @ weights) / (masked_N @ weights).clamp(min=1)).numpy()
        return with_interval(name, float(differ_N.sum() / masked_N.sum()), replicates, self.confidence)
