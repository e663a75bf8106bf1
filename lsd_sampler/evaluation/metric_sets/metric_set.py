"""The interface of metric sets: what they compute, and the number by which samplers are compared.

The verdict is always a distance between distributions; a likelihood alone can be bought with entropy (arXiv
2604.02718).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch

from ..bootstrap import grouped_weights, kept_replicates, with_interval
from ..columns import Metric
from ..judge import JudgeNLL


Values = dict[str, Any]


MEAN_CALLS = Metric(
    "mean_calls",
    "mean calls",
    "Network calls until a sample is complete, on average. Samplers with swept constants are read off at these.",
    lower_is_better=None,
    interval=True,
)


class Layout(NamedTuple):
    """The keys of the numbers that a report shows, in order; keys that no row holds are left out.

    Attributes:
        table: the first table, behind the sampler and its number of calls.
        details: the second.
        drawn: the charts.
    """

    table: tuple[str, ...]
    details: tuple[str, ...]
    drawn: tuple[str, ...]


@runtime_checkable
class MetricSet(Protocol):
    """A set of metrics: subclass it, set `metrics` and `verdict_key`, and write `compute`. All else has a default.

    Attributes:
        metrics: all that `compute` and `derived` return.
        verdict_key: the metric that is minimised when samplers, or temperatures of one sampler, are compared.
        verdict_words: how sentences say that a sampler has the least verdict, and that another has more.
        likelihood_key: the likelihood of the frontier, lower is better; None where there is none.
        entropy_key: the entropy that the likelihood is read against, and which is drawn beside the verdict.
        replicates: the metrics for which `compute` also returns bootstrap replicates, as `KEY_replicates`. "Calls
            saved" and "by more than chance" are computed from those of the verdict, the intervals of the frontier
            from those of likelihood and entropy.
        tokenizer: of the sequences, where they are texts.
        judge: the language model behind the likelihood, where there is one.
        canvases: (`torch.LongTensor` of shape `(num_samples, length)`), what the samples must fill in; None where
            they are whole.
    """

    metrics: tuple[Metric, ...] = ()
    verdict_key: str = ""
    verdict_words: tuple[str, str] = ("is closest", "is further away")
    likelihood_key: str | None = None
    entropy_key: str | None = None
    replicates: tuple[str, ...] = ()
    tokenizer: Any = None
    judge: JudgeNLL | None = None
    canvases: torch.Tensor | None = None

    def compute(self, sequences: torch.Tensor, texts: Sequence[str] | None = None) -> Values:
        """The metrics of `sequences` (`torch.LongTensor` of shape `(num_samples, length)`) and their decoded texts.

        Numbers; and under `KEY_replicates` lists of bootstrap replicates, made with the same resamples for every row.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `compute`.")

    def verdict(self, sequences: torch.Tensor) -> float:
        """The value of `verdict_key` alone. Override it where that is cheaper: it is called for many temperatures."""
        return self.compute(sequences)[self.verdict_key]

    def derived(self, row: Mapping[str, Any]) -> Values:
        """Metrics that follow from a row's other numbers, its `network_calls` for example."""
        return {}

    def of_calls(self, calls: torch.Tensor) -> Values:
        """Metrics of the network calls of each sample, `torch.LongTensor` of shape `(num_samples,)`: here their mean,
        where they vary. It is resampled with the weights of [`bootstrap_weights`] for `num_resamples`, `seed` and
        `group`, as far as there are such attributes, so that calls and verdict vary together.
        """
        if not len(calls) or bool((calls == calls[0]).all()):
            return {}
        group, num = getattr(self, "group", 1), getattr(self, "num_resamples", 200)
        weights = grouped_weights(len(calls), group, num, getattr(self, "seed", 0)).double()
        mean_B = ((calls.double() @ weights) / weights.sum(0)).numpy()
        confidence = getattr(self, "confidence", 0.95)
        row = with_interval(MEAN_CALLS.key, float(calls.double().mean()), mean_B, confidence)
        return row | kept_replicates({MEAN_CALLS.key: mean_B})

    def check_num_samples(self, num_samples: int) -> None:
        """Raises `ValueError` if `num_samples` samples could not be measured. It is called before any is made."""

    @property
    def fingerprint(self) -> str | None:
        """A text that identifies what samples are compared with, so that `resume` recognises rows of another set."""
        return None

    @property
    def keys(self) -> tuple[str, ...]:
        """The names that a measured row holds. A stored row that lacks one is not reused."""
        columns = [column.key for metric in self.metrics for column in metric.columns]
        return (*columns, *(f"{key}_replicates" for key in self.replicates))

    def layout(self) -> Layout:
        """What a report shows: here all metrics, the verdict last, and how the samples were made."""
        ordered = sorted(self.metrics, key=lambda metric: metric.key == self.verdict_key)
        table = [column.key for metric in ordered for column in metric.columns]
        drawn = (self.verdict_key, *([self.entropy_key] if self.entropy_key else []))
        settings = ("temperature", "guidance_scale")
        return Layout((*settings, *table), (*settings, "length", "seconds", "network_calls"), drawn)
