"""The metric set of texts: the distance of decoded samples from real text, diversity, and a judge's likelihood."""

from collections.abc import Sequence
from typing import Any

import torch

from ...sampling.left_out import LEFT_OUT
from ..bootstrap import bootstrap_weights, kept_replicates, with_interval
from ..columns import Metric, with_ends
from ..divergence import js_sum
from ..diversity import conditional_entropy
from ..judge import JudgeNLL, count_words, perplexity
from ..ngrams import LEFT_OUT_CHARACTER, ngram_counts
from ..tokens import decode, present
from .metric_set import Layout, Values
from .token_metrics import TokenMetrics, sum_of


JUDGED = (
    Metric(
        "judge_nll",
        "judge NLL/token",
        "Negative log-likelihood of a token under the judge, a causal language model, in nats. It can be bought "
        "with entropy, so it is never the verdict.",
        interval=True,
    ),
    Metric("word_nll", "judge NLL/word", "The same per word of the text, which does not depend on the tokenizer."),
    Metric("perplexity", "perplexity", "exp of the judge's negative log-likelihood per token.", digits=1),
    Metric(
        "word_perplexity",
        "per word",
        "The same per word of the text, which does not depend on the judge's tokenizer: exp(total negative log- "
        "likelihood / words).",
        digits=1,
    ),
)
CHAR_TRIGRAM_ENTROPY = Metric(
    "char_trigram_entropy", "char 3-gram entropy", "Entropy of a character given the two before it, in nats."
)


def char_ngrams(orders: Sequence[int]) -> tuple[Metric, ...]:
    """The divergence of character n-grams of each of these lengths, and their sum."""
    each = [
        Metric(
            f"js_char_{n}gram",
            f"JS {n}-grams",
            f"Jensen-Shannon divergence between the character {n}-grams of the samples and of held-out text, in nats: "
            "0 for equal laws, 0.693 for laws that share nothing.",
            lower_is_better=True,
            interval=True,
        )
        for n in orders
    ]
    return (*each, sum_of("js_char_sum", orders, "The verdict for text"))


class TextMetrics(TokenMetrics):
    """Distance of decoded samples from real text, diversity, and the judge's likelihood where a judge is given.

    The verdict `js_char_sum` is the sum over `orders` of the Jensen-Shannon divergences of *character* n-grams from
    the reference's (nats): it does not depend on a tokenizer.

    Args:
        tokenizer: of the sequences (`tokenizers.Tokenizer` or transformers).
        judge (`JudgeNLL`, *optional*): scores token ids where it has the same tokenizer, texts otherwise.
        reference (`torch.LongTensor` of shape `(num_references, length)`): see `TokenMetrics`.
        orders: lengths of the character n-grams.
        max_judged (`int`, *optional*): the number of samples that the judge, the slowest part, scores; 256 samples of
            128 tokens give its mean to a few hundredths of a nat. All other metrics use all samples.
        options: further arguments of `TokenMetrics`.

    Raises:
        ValueError: as `TokenMetrics`, or if `max_judged` is below 1.
    """

    metrics = (*JUDGED, *TokenMetrics.metrics, CHAR_TRIGRAM_ENTROPY, *char_ngrams((3, 4)))
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
        judged = JUDGED if judge else ()
        self.metrics = (*judged, *self.metrics, CHAR_TRIGRAM_ENTROPY, *char_ngrams(tuple(self._char_references)))
        self.likelihood_key = "judge_nll" if judge else None
        self.replicates = ("js_char_sum", "unigram_entropy", *(["judge_nll"] if judge else []))

    def compute(self, sequences: torch.Tensor, texts: Sequence[str] | None = None) -> Values:
        """Metrics of `sequences`, of shape `(num_samples, length)`, decoded here where `texts` is None. All in nats.

        Raises:
            ValueError: if `texts` and `sequences` differ in number, or if the judge cannot score them.
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
        return js_sum(decode(self.tokenizer, self._counted(sequences)), self._char_references)

    def layout(self) -> Layout:
        """The judge's likelihood beside entropies, the distance from real text, then variety."""
        ngrams = tuple(f"js_char_{n}gram" for n in self._char_references)
        entropies = ("judge_nll", "unigram_entropy", "char_trigram_entropy")
        table = ("temperature", *entropies, *ngrams, *with_ends("js_char_sum"))
        return Layout(table, ("perplexity", "word_perplexity", *super().layout().details), ngrams)

    def _yardstick(self) -> Values:
        judge = self.judge.identity if self.judge else None
        own = {"characters": list(self._char_references), "judge": judge, "max_judged": self.max_judged}
        return super()._yardstick() | own

    def _likelihood(self, sequences: torch.Tensor, texts: Sequence[str]) -> Values:
        """Per token, and per word, which makes judges with different tokenizers comparable."""
        if self.judge is None:
            return {}
        counted = self._counted(sequences)
        rows = [present(row) for row in counted] if bool((counted == LEFT_OUT).any()) else sequences
        texts = [text.replace(LEFT_OUT_CHARACTER, "") for text in texts]
        scores = self.judge.score(rows, texts, self.tokenizer)
        weights = bootstrap_weights(len(texts), self.num_resamples, self.seed).double().T
        replicates = ((weights @ scores.nll) / (weights @ scores.num_tokens.double())).numpy()
        row: Values = with_interval("judge_nll", scores.mean, replicates, self.confidence)
        row["word_nll"] = scores.per_unit(sum(map(count_words, texts)))
        row["perplexity"], row["word_perplexity"] = perplexity(scores.mean), perplexity(row["word_nll"])
        return row | kept_replicates({"judge_nll": replicates})

    def _texts(self, sequences: torch.Tensor) -> Sequence[str]:
        return decode(self.tokenizer, sequences)
