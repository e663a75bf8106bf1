"""The metric set of tasks with a right answer: how many answers are right, for how many calls."""

from collections.abc import Sequence

import torch

from ...support.identity import Undescribable, identity
from ...support.tasks import Checker, Task, outputs_of, share_right
from ..bootstrap import bootstrap_weights, kept_replicates, with_interval
from ..columns import Metric, with_ends
from ..parallelism import wilson
from .metric_set import MEAN_CALLS, Layout, MetricSet, Values


RIGHT_SHARE = Metric(
    "right_share",
    "right",
    "Share of answers that the checker calls right, with Wilson's interval (of the effective number of answers, where "
    "an item has several).",
    lower_is_better=False,
    interval=True,
)
WRONG_SHARE = Metric(
    "wrong_share",
    "wrong",
    "Share of answers that the checker calls wrong: 1 minus the share of right ones.",
    lower_is_better=True,
    interval=True,
)
TOKENS_PER_CALL = Metric(
    "tokens_per_call",
    "tokens a call",
    "Tokens that were to be filled in, over the network calls that it took.",
)
DISTINCT_ANSWERS = Metric(
    "distinct_answers",
    "answers an item",
    "Different answers to an item, on average. 1 where each item is answered once: more samples than items show "
    "variety.",
)


class TaskMetrics(MetricSet):
    """How many answers are right; sample i answers item `i % len(items)`.

    Args:
        items (sequence of `dict`): see `lsd_sampler.support.tasks`.
        checker ([`Checker`]): says which answers are right.
        canvases (sequence of `torch.LongTensor` of shape `(length,)`): of the items.
        mask_token_id (`int`): marks the positions to fill in.
        tokenizer (*optional*): of the answers, where they are texts.
        checker_name (`str`, *optional*): tells rows of one checker from those of another.
        num_resamples (`int`): bootstrap resamples of whole items.
        seed (`int`): of the bootstrap.
        confidence (`float`): of the intervals.
    """

    metrics = (RIGHT_SHARE, WRONG_SHARE, MEAN_CALLS, TOKENS_PER_CALL, DISTINCT_ANSWERS)
    verdict_key = "wrong_share"
    verdict_words = ("has the fewest wrong answers", "has more")
    replicates = ("wrong_share", "mean_calls")

    def __init__(
        self,
        items: Sequence[Task],
        checker: Checker,
        canvases: Sequence[torch.Tensor],
        mask_token_id: int,
        *,
        tokenizer: object | None = None,
        checker_name: str | None = None,
        num_resamples: int = 200,
        seed: int = 0,
        confidence: float = 0.95,
    ):
        self.items, self.checker, self.tokenizer, self.checker_name = items, checker, tokenizer, checker_name
        self.holes = torch.tensor([int((canvas == mask_token_id).sum()) for canvas in canvases])
        self.num_resamples, self.seed, self.confidence = num_resamples, seed, confidence

    @property
    def fingerprint(self) -> str | None:
        """Short hash of the items, the checker's name and the bootstrap."""
        try:
            own = [list(self.items), self.checker_name, self.num_resamples, self.seed, self.confidence]
            return identity(own)[:12]
        except Undescribable:  # what an item keeps for its checker may be anything
            return identity([[str(item) for item in self.items], self.checker_name])[:12]

    def compute(self, sequences: torch.Tensor, texts: Sequence[str] | None = None) -> Values:
        """Metrics of the answers, `(num_samples, length)`. `texts` is ignored.

        Raises:
            ValueError: if the checker fails; the message names the item.
        """
        right_N, place_N = self._right(sequences), self._place(len(sequences))
        share, weights = float(right_N.mean()), self._weights(len(sequences))
        wrong_B = (1 - (right_N @ weights) / weights.sum(0)).numpy()
        low, high = wilson(right_N, place_N, self.confidence)
        row: Values = {"right_share": share, "right_share_low": low, "right_share_high": high}
        row |= {"wrong_share": 1 - share, "wrong_share_low": 1 - high, "wrong_share_high": 1 - low}
        return row | {"distinct_answers": self._distinct(sequences)} | kept_replicates({"wrong_share": wrong_B})

    def of_calls(self, calls: torch.Tensor) -> Values:
        """Mean calls and tokens per call, from the network calls of each sample, `(num_samples,)`."""
        weights, calls_N = self._weights(len(calls)), calls.double()
        mean_B = ((calls_N @ weights) / weights.sum(0)).numpy()
        row: Values = with_interval("mean_calls", float(calls_N.mean()), mean_B, self.confidence)
        row["tokens_per_call"] = float(self.holes[self._place(len(calls))].sum() / calls_N.sum())
        return row | kept_replicates({"mean_calls": mean_B})

    def verdict(self, sequences: torch.Tensor) -> float:
        """The value of `verdict_key` alone."""
        return 1 - float(self._right(sequences).mean())

    def layout(self) -> Layout:
        """The share of right answers and the calls that they took."""
        table = (*with_ends("right_share"), *with_ends("mean_calls"), "tokens_per_call", "distinct_answers")
        settings = ("temperature", "guidance_scale")
        details = (*settings, *with_ends("wrong_share"), "length", "seconds", "network_calls")
        return Layout(table, details, ("wrong_share",))

    def _place(self, num: int) -> torch.Tensor:
        """The item of each sample."""
        return torch.arange(num) % len(self.items)

    def _answered(self, num: int) -> list[Task]:
        return [self.items[i] for i in self._place(num).tolist()]

    def _right(self, sequences: torch.Tensor) -> torch.Tensor:
        return share_right(sequences, self._answered(len(sequences)), self.checker, self.tokenizer).double()

    def _weights(self, num: int) -> torch.Tensor:
        """How often each sample is in each resample of items, float64 of shape `(num, num_resamples)`."""
        num_items = min(num, len(self.items))
        return bootstrap_weights(num_items, self.num_resamples, self.seed)[self._place(num)].double()

    def _distinct(self, sequences: torch.Tensor) -> float:
        outputs = outputs_of(sequences, self._answered(len(sequences)), self.tokenizer)
        found = {(i, str(output)) for i, output in zip(self._place(len(outputs)).tolist(), outputs, strict=True)}
        return len(found) / min(len(outputs), len(self.items))
