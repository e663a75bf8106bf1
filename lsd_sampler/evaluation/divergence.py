"""How far a set of samples lies from real data: the Jensen-Shannon divergence of their n-grams.

All values are plug-in estimates in nats. They grow as the number of samples falls, so compare only equal numbers of
samples, and read a divergence beside that of real data of the same size.
"""

from collections.abc import Mapping

import numpy as np
import torch

from .bootstrap import RESAMPLES_AT_ONCE
from .ngrams import NgramCounts, Samples, ngram_counts


def js_divergence(p_counts: NgramCounts, q_counts: NgramCounts) -> float:
    """Jensen-Shannon divergence of two n-gram laws in nats: 0 for equal laws, ln 2 for laws that share no n-gram.

    Raises:
        ValueError: if the two hold n-grams of different lengths.
    """
    return float(_js_columns(torch.from_numpy(p_counts.counts)[:, None].double(), p_counts, q_counts))


def js_replicates(p_counts: NgramCounts, q_counts: NgramCounts, weights: torch.Tensor) -> np.ndarray:
    """The divergence for each resample of the samples behind `p_counts`; `q_counts`, the reference, is held fixed.

    Args:
        weights (`torch.FloatTensor` of shape `(num_samples, num_resamples)`): see `bootstrap_weights`.

    Returns:
        `float64` array of shape `(num_resamples,)`, in nats.
    """
    parts = [_js_columns(p_counts.resampled(w), p_counts, q_counts) for w in weights.split(RESAMPLES_AT_ONCE, dim=1)]
    return torch.cat(parts).numpy()


def js_sum(samples: Samples, references: Mapping[int, NgramCounts]) -> float:
    """The sum of the divergences of the samples' n-grams from each of `references` (n -> counts), in nats."""
    return sum(js_divergence(ngram_counts(samples, n), reference) for n, reference in references.items())


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
