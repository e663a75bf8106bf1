"""What each metric is called in tables, and what it means in a sentence."""

from collections.abc import Iterable
from typing import NamedTuple


class Metric(NamedTuple):
    """Heading in tables, and meaning."""

    heading: str
    meaning: str = ""


METRICS: dict[str, Metric] = {
    "sampler": Metric("sampler"),
    "nfe": Metric("NFE", "Number of calls of the network for a sample."),
    "temperature": Metric(
        "temp.",
        "Global temperature of the token draws: each sampler's own best, chosen on other samples.",
    ),
    "network_calls": Metric("calls", "Calls really made for a sample, on average."),
    "forbidden_share": Metric(
        "forbidden",
        "Share of transitions that the chain can never make; on countdown, the share of wrong tokens. 0 is right.",
    ),
    "forbidden_samples": Metric(
        "wrong samples",
        "Share of samples with at least one forbidden transition. 0 is right.",
    ),
    "reverse_kl": Metric(
        "reverse KL",
        "Divergence of the samples' transitions from the chain's, in nats per transition: cross-entropy minus the "
        "samples' own entropy, so it cannot be bought with entropy. Lower is better; forbidden transitions are "
        "charged 27.6 nats.",
    ),
    "reverse_kl_low": Metric("low", "Lower end of the bootstrap interval."),
    "reverse_kl_high": Metric("high", "Upper end of the bootstrap interval."),
    "bigram_tv": Metric(
        "bigram TV",
        "Total variation between the law of adjacent pairs and the chain's, from 0 (equal) to 1.",
    ),
    "cross_entropy": Metric(
        "cross-entropy",
        "Negative log-likelihood of a transition under the chain, in nats. It means nothing without the entropy "
        "beside it.",
    ),
    "bigram_entropy": Metric(
        "cond. entropy",
        "Entropy of a token given the one before it, in nats. It should be that of real data, neither more nor less.",
    ),
    "judge_nll": Metric(
        "judge NLL/token",
        "Negative log-likelihood of a token under the judge, a causal language model, in nats. It can be bought "
        "with entropy, so it is never the verdict.",
    ),
    "perplexity": Metric("perplexity", "exp of the judge's negative log-likelihood per token."),
    "word_perplexity": Metric(
        "per word",
        "The same per word of the text, which does not depend on the judge's tokenizer: exp(total negative log- "
        "likelihood / words).",
    ),
    "unigram_entropy": Metric(
        "unigram entropy",
        "Entropy of the tokens of all samples together, in nats. It should be that of real data.",
    ),
    "sequence_entropy": Metric(
        "entropy in a sample",
        "Entropy of the tokens inside one sample, in nats, averaged: what published tables call entropy.",
    ),
    "char_trigram_entropy": Metric("char 3-gram entropy", "Entropy of a character given the two before it, in nats."),
    "distinct_1": Metric("distinct-1", "Distinct tokens divided by all tokens."),
    "distinct_2": Metric("distinct-2", "Distinct pairs of tokens divided by all pairs."),
    "distinct_3": Metric("distinct-3", "The same for triples."),
    "distinct_4": Metric("distinct-4", "The same for four in a row."),
    "repetition_4": Metric("rep-4", "Share of a sample's token 4-grams that occurred in it before."),
    "js_char_3gram": Metric(
        "JS 3-grams",
        "Jensen-Shannon divergence between the character 3-grams of the samples and of held-out text, in nats: 0 "
        "for equal laws, 0.693 for laws that share nothing.",
    ),
    "js_char_4gram": Metric("JS 4-grams", "The same for character 4-grams."),
    "js_char_sum": Metric("JS 3+4", "The verdict for text: the sum of both divergences. Lower is better."),
    "js_char_sum_low": Metric("sum low", "Lower end of the bootstrap interval of the sum of both."),
    "js_char_sum_high": Metric("sum high", "Upper end of it."),
    "js_token_1gram": Metric(
        "JS tokens",
        "Jensen-Shannon divergence between the tokens of the samples and of the reference, in nats.",
    ),
    "js_token_2gram": Metric("JS token pairs", "The same for pairs of neighbouring tokens."),
    "js_token_sum": Metric("JS 1+2", "The verdict for tokens: the sum of both divergences. Lower is better."),
    "js_token_sum_low": Metric("sum low", "Lower end of the bootstrap interval of the sum of both."),
    "js_token_sum_high": Metric("sum high", "Upper end of it."),
    "energy_distance": Metric(
        "energy dist.",
        "Energy distance to real data in an embedding space, in its unit, without bias: it scatters around 0 "
        "where the laws are equal.",
    ),
    "energy_distance_low": Metric("energy low", "Lower end of its bootstrap interval."),
    "energy_distance_high": Metric("energy high", "Upper end of it."),
    "mauve": Metric("MAUVE", "Overlap of samples and real data in an embedding space, from 0 to 1. Higher is better."),
}

ORACLE_COLUMNS = (
    "sampler", "nfe", "forbidden_share", "reverse_kl", "reverse_kl_low", "reverse_kl_high", "bigram_tv",
    "bigram_entropy",
)  # fmt: skip
TEXT_COLUMNS = (
    "sampler", "nfe", "temperature", "judge_nll", "unigram_entropy", "char_trigram_entropy", "js_char_3gram",
    "js_char_4gram", "js_char_sum", "js_char_sum_low", "js_char_sum_high",
)  # fmt: skip
TOKEN_COLUMNS = (
    "sampler", "nfe", "temperature", "unigram_entropy", "bigram_entropy", "js_token_1gram", "js_token_2gram",
    "js_token_sum", "js_token_sum_low", "js_token_sum_high",
)  # fmt: skip
ORACLE_DETAILS = (
    "sampler", "nfe", "temperature", "forbidden_samples", "cross_entropy", "bigram_entropy", "unigram_entropy",
    "network_calls",
)  # fmt: skip
TEXT_DETAILS = (
    "sampler", "nfe", "perplexity", "word_perplexity", "unigram_entropy", "sequence_entropy", "bigram_entropy",
    "distinct_1", "distinct_2", "distinct_3", "distinct_4", "repetition_4", "js_token_1gram", "js_token_2gram",
    "energy_distance", "energy_distance_low", "energy_distance_high", "mauve", "network_calls",
)  # fmt: skip

# by the verdict: the first table, the second, and what is drawn
COLUMNS = {
    "reverse_kl": (ORACLE_COLUMNS, ORACLE_DETAILS, ("reverse_kl", "forbidden_share")),
    "js_char_sum": (TEXT_COLUMNS, TEXT_DETAILS, ("js_char_3gram", "js_char_4gram")),
    "js_token_sum": (TOKEN_COLUMNS, TEXT_DETAILS, ("js_token_1gram", "js_token_2gram")),
}


# what a row says beside its metrics
_CIRCUMSTANCES = (
    "sampler", "nfe", "temperature", "num_samples", "batch_size", "seed", "length", "seconds", "network_calls",
)  # fmt: skip


def metric(name: str) -> Metric:
    """Heading and meaning; of a metric that is not in the glossary, its name."""
    return METRICS.get(name, Metric(name))


def columns(verdict_key: str, entropy_key: str, rows: Iterable[dict]) -> tuple[tuple[str, ...], ...]:
    """What the first table shows, what the second, and what is drawn; of metrics of one's own, all numbers."""
    if verdict_key in COLUMNS:
        return COLUMNS[verdict_key]
    found = [key for row in rows for key, value in row.items() if _is_number(value) and key not in _CIRCUMSTANCES]
    own = dict.fromkeys([*(key for key in found if not key.startswith(verdict_key)), *found])
    drawn = dict.fromkeys((verdict_key, *(key for key in own if key == entropy_key)))
    return (*_CIRCUMSTANCES[:3], *own), (*_CIRCUMSTANCES[:3], *_CIRCUMSTANCES[-3:]), tuple(drawn)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def headings(names: Iterable[str], rows: Iterable[dict]) -> dict[str, str]:
    """Column -> heading, of those columns that some row has."""
    present = {key for row in rows for key, value in row.items() if value is not None}
    return {name: metric(name).heading for name in names if name in present}
