"""How far a set of samples lies from real text: n-gram Jensen-Shannon divergence, entropies, bootstrap intervals.

All values are plug-in estimates in nats. They depend on the number of samples (entropies are biased down, divergences
up), so compare only equal numbers of samples, and read a divergence beside that of real text of the same size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F


Samples = Sequence[str] | torch.Tensor | np.ndarray | Sequence[Sequence[int]]

SYMBOL_BITS = 21  # Unicode needs 21 bits, and three symbols fit into 64
_RESAMPLES_AT_ONCE = 50  # bounds the memory of a bootstrap to a few tens of MB


@dataclass(frozen=True)
class NgramCounts:
    """The n-grams of a set of samples.

    Attributes:
        n: length of the n-grams.
        keys: (`uint64` array of shape `(num_distinct,)`), sorted. Exact packing (first symbol highest) for `n <= 3`, a
            64-bit hash above: among a million distinct n-grams two collide with probability 3e-8.
        counts: (`int64` array of shape `(num_distinct,)`).
        owners: (`int64` array of shape `(total,)`), the sample each occurrence lies in, ordered by key.
        num_samples: number of samples, those too short for an n-gram included.
    """

    n: int
    keys: np.ndarray
    counts: np.ndarray
    owners: np.ndarray
    num_samples: int

    @property
    def total(self) -> int:
        """Number of n-grams, repeats included."""
        return len(self.owners)

    def resampled(self, weights: torch.Tensor) -> torch.Tensor:
        """Counts when sample i is taken `weights[i]` times.

        Args:
            weights (`torch.FloatTensor` of shape `(num_samples, num_resamples)`): see `bootstrap_weights`.

        Returns:
            `torch.DoubleTensor` of shape `(num_distinct, num_resamples)`.
        """
        offsets = torch.from_numpy(np.cumsum(self.counts) - self.counts)
        # A sum of rows per bag is the sparse product (distinct x samples) @ weights; integers below 2^24 are exact in
        # float32.
        return F.embedding_bag(torch.from_numpy(self.owners), weights, offsets, mode="sum").double()


@dataclass(frozen=True)
class Interval:
    """An estimate and its bootstrap interval, in the unit of the estimate."""

    value: float
    low: float
    high: float


def _flatten(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """All symbols in a row, as uint64, and the number of symbols of each sample."""
    if isinstance(samples, torch.Tensor):
        samples = samples.detach().cpu().numpy()
    if isinstance(samples, np.ndarray):
        if samples.ndim != 2:
            raise ValueError(f"`samples` must have shape (num_samples, length), got {tuple(samples.shape)}.")
        symbols, lengths = samples.ravel(), np.full(len(samples), samples.shape[1])
    else:
        lengths = np.fromiter(map(len, samples), np.int64, len(samples))
        if all(isinstance(sample, str) for sample in samples):
            data = "".join(cast(Sequence[str], samples)).encode("utf-32-le", "surrogatepass")
            symbols = np.frombuffer(data, dtype="<u4")
        else:
            symbols = np.concatenate([np.asarray(sample, dtype=np.int64) for sample in samples])
    if symbols.size and (symbols.min() < 0 or symbols.max() >= 1 << SYMBOL_BITS):
        raise ValueError(f"`samples` must hold ids in [0, 2^{SYMBOL_BITS}), got {symbols.min()} to {symbols.max()}.")
    return symbols.astype(np.uint64), lengths


def _mix(keys: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit integers that spreads every bit (the finaliser of SplitMix64)."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def _pack(symbols: np.ndarray, n: int) -> np.ndarray:
    """A 64-bit key for the n symbols that start at each place, boundaries ignored."""
    num_starts = len(symbols) - n + 1
    keys = symbols[:num_starts]
    for offset in range(1, n):
        following = symbols[offset : offset + num_starts]
        keys = (keys << np.uint64(SYMBOL_BITS) | following) if offset < 3 else _mix(keys) ^ following
    return keys


def _inside(lengths: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts of the n-grams that lie inside one sample, and the sample of each."""
    owners = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.flatnonzero(owners[: max(len(owners) - n + 1, 0)] == owners[n - 1 :])
    return starts, owners[starts]


def ngram_counts(samples: Samples, n: int) -> NgramCounts:
    """Counts the n-grams of characters (texts) or tokens (ids). No n-gram crosses from one sample into the next.

    Args:
        samples: texts, or token ids as an array or tensor of shape `(num_samples, length)` or as ragged lists.
        n (`int`): length of the n-grams, at least 1.

    Raises:
        ValueError: if `n < 1`, or `samples` hold no n-gram of that length, or ids outside [0, 2^21).
    """
    if n < 1:
        raise ValueError(f"`n` must be at least 1, got {n}.")
    if len(samples) == 0:
        raise ValueError("`samples` must not be empty.")
    symbols, lengths = _flatten(samples)
    starts, owners = _inside(lengths, n)
    if not len(starts):
        raise ValueError(f"`samples` hold no {n}-gram: each is shorter than {n}.")
    packed = _pack(symbols, n)[starts]
    order = np.argsort(packed, kind="stable")
    packed = packed[order]
    first = np.flatnonzero(np.concatenate([[True], packed[1:] != packed[:-1]]))
    counts = np.diff(np.append(first, len(packed)))
    return NgramCounts(n, packed[first], counts, owners[order], len(lengths))


def _x_log_x(x: torch.Tensor) -> torch.Tensor:
    return torch.special.xlogy(x, x)


def _aligned(p: NgramCounts, q: NgramCounts) -> np.ndarray:
    """Counts of `q` at the keys of `p`."""
    if p.n != q.n:
        raise ValueError(f"`p_counts` and `q_counts` must hold n-grams of one length, got {p.n} and {q.n}.")
    place = np.minimum(np.searchsorted(q.keys, p.keys), len(q.keys) - 1)
    return np.where(q.keys[place] == p.keys, q.counts[place], 0)


def _js_columns(counts_KB: torch.Tensor, p: NgramCounts, q: NgramCounts) -> torch.Tensor:
    """Divergence from `q` of each column of counts over the n-grams of `p`, as float64 of shape `(B,)`."""
    shared = _aligned(p, q)
    p_KB = counts_KB / counts_KB.sum(0)
    q_K1 = torch.from_numpy(shared / q.total)[:, None]
    inside = 0.5 * (_x_log_x(p_KB) + _x_log_x(q_K1)) - _x_log_x(0.5 * (p_KB + q_K1))
    # Where p is zero the integrand is q ln(2) / 2; the count is an integer, so that JS(p, p) is exactly zero.
    outside = 0.5 * np.log(2) * int(q.total - shared.sum()) / q.total
    return (inside.sum(0) + outside).clamp(min=0, max=float(np.log(2)))


def js_divergence(p_counts: NgramCounts, q_counts: NgramCounts) -> float:
    """Jensen-Shannon divergence of two n-gram laws in nats: 0 for equal laws, ln 2 for laws that share no n-gram.

    Raises:
        ValueError: if the two hold n-grams of different lengths.
    """
    return float(_js_columns(torch.from_numpy(p_counts.counts)[:, None].double(), p_counts, q_counts))


def bootstrap_weights(num_samples: int, num_resamples: int = 200, seed: int = 0) -> torch.Tensor:
    """How often each sample is drawn in each resample (whole samples, with replacement).

    Returns:
        `torch.FloatTensor` of shape `(num_samples, num_resamples)` whose columns sum to `num_samples`.

    Raises:
        ValueError: if `num_samples` or `num_resamples` is below 1.
    """
    if num_samples < 1 or num_resamples < 1:
        raise ValueError(f"`num_samples` and `num_resamples` must be at least 1, got {num_samples}, {num_resamples}.")
    law = np.full(num_samples, 1 / num_samples)
    draws = np.random.default_rng(seed).multinomial(num_samples, law, size=num_resamples)
    return torch.from_numpy(draws.T.astype(np.float32))


def centred_interval(
    value: float, replicates: np.ndarray, confidence: float = 0.95, minimum: float | None = None
) -> Interval:
    """The interval `value + (quantiles of the replicates - their mean)`.

    A resample holds fewer distinct samples than the original, so plug-in divergences of resamples are all too large
    and the usual percentile interval can lie wholly above the estimate. Only their spread is used.

    Raises:
        ValueError: if `confidence` is not in (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be in (0, 1), got {confidence}.")
    tail = (1 - confidence) / 2
    low, high = value + np.quantile(replicates, [tail, 1 - tail]) - np.mean(replicates)
    return Interval(value, float(low) if minimum is None else max(float(low), minimum), float(high))


def js_replicates(p_counts: NgramCounts, q_counts: NgramCounts, weights: torch.Tensor) -> np.ndarray:
    """The divergence for each resample of the samples behind `p_counts`; `q_counts`, the reference, is held fixed.

    Args:
        weights (`torch.FloatTensor` of shape `(num_samples, num_resamples)`): see `bootstrap_weights`.

    Returns:
        `float64` array of shape `(num_resamples,)`, in nats.
    """
    parts = [_js_columns(p_counts.resampled(w), p_counts, q_counts) for w in weights.split(_RESAMPLES_AT_ONCE, dim=1)]
    return torch.cat(parts).numpy()


def bootstrap_js(
    p_counts: NgramCounts,
    q_counts: NgramCounts,
    *,
    num_resamples: int = 200,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """`js_divergence` with its bootstrap interval, given the reference `q_counts`. Deterministic for a seed."""
    replicates = js_replicates(p_counts, q_counts, bootstrap_weights(p_counts.num_samples, num_resamples, seed))
    return centred_interval(js_divergence(p_counts, q_counts), replicates, confidence, minimum=0.0)


def _entropy(counts: np.ndarray) -> float:
    p = counts / counts.sum()
    return float(max(-(p * np.log(p)).sum(), 0.0))


def conditional_entropy(samples: Samples, n: int = 1) -> float:
    """Entropy of a symbol given the `n - 1` before it, in nats: unigram (n = 1), bigram-conditional (2),
    trigram-conditional (3).

    Raises:
        ValueError: as `ngram_counts`.
    """
    joint = ngram_counts(samples, n)
    if n == 1:
        return _entropy(joint.counts)
    symbols, lengths = _flatten(samples)
    starts, _ = _inside(lengths, n)
    contexts = np.unique(_pack(symbols, n - 1)[starts], return_counts=True)[1]
    return max(_entropy(joint.counts) - _entropy(contexts), 0.0)


def sequence_entropy(samples: Samples) -> float:
    """Mean over samples of the unigram entropy inside one sample, in nats: the "entropy" that published tables report.

    Raises:
        ValueError: as `ngram_counts`.
    """
    table = ngram_counts(samples, 1)
    symbol = np.repeat(np.arange(len(table.keys)), table.counts)
    pair, counts = np.unique(table.owners * len(table.keys) + symbol, return_counts=True)
    owner = pair // len(table.keys)
    lengths = np.bincount(owner, weights=counts, minlength=table.num_samples)
    share = counts / lengths[owner]
    return float(-(share * np.log(share)).sum() / np.count_nonzero(lengths))


def distinct_n(samples: Samples, n: int) -> float:
    """Distinct n-grams divided by all n-grams of the set, in (0, 1]. It falls as the set grows: compare equal sizes.

    Raises:
        ValueError: as `ngram_counts`.
    """
    table = ngram_counts(samples, n)
    return len(table.keys) / table.total
