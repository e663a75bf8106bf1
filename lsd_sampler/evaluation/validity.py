"""Exact quality of samples from a set of sequences whose law is known: how many are possible, and how they are spread.

A sampler that always makes the same possible sequence has no invalid samples, so their share never stands alone.
"""

from dataclasses import dataclass

import torch


MAX_SPREAD = 2**14
"""The largest set over which the spread of samples is measured."""
_LEAST_EXPECTED = 5  # samples for each sequence of the set, for chi-square to be the law of the statistic


@dataclass(frozen=True)
class Spread:
    """Pearson's statistic of the possible samples over the set.

    Attributes:
        ratio: the statistic over its degrees of freedom: 1 on average for exact samples, whatever their number.
        p_value: the share of exact sets of samples that are spread no more evenly; None with fewer than 5 samples for
            each sequence.
    """

    ratio: float
    p_value: float | None


def spread(samples: torch.Tensor, log_p_N: torch.Tensor, num_valid: int) -> Spread | None:
    """How the possible samples among independent ones are spread over the set, by Pearson's chi-square.

    Args:
        samples (`torch.LongTensor` of shape `(num_samples, length)`): sequences.
        log_p_N (`torch.DoubleTensor` of shape `(num_samples,)`): their true log-probabilities, in nats.
        num_valid (`int`): how many sequences are possible.

    Returns:
        [`Spread`], or None if no sample, or only one sequence, is possible.
    """
    possible_N = log_p_N > -torch.inf
    n = int(possible_N.sum())
    if not n or num_valid < 2:
        return None
    _, place, counts_U = samples[possible_N].unique(dim=0, return_inverse=True, return_counts=True)
    p_U = torch.zeros(len(counts_U), dtype=torch.float64).scatter_(0, place, log_p_N[possible_N].exp())
    statistic = ((counts_U - n * p_U).square() / (n * p_U)).sum() + n * (1 - p_U.sum()).clamp(min=0)
    freedom = torch.tensor(num_valid - 1.0, dtype=torch.float64)
    known = n >= _LEAST_EXPECTED * num_valid
    p_value = float(torch.special.gammaincc(freedom / 2, statistic / 2)) if known else None
    return Spread(float(statistic / freedom), p_value)


def sequence_l2(
    samples: torch.Tensor, log_p_N: torch.Tensor, collision_probability: float, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Squared distance between the samples' law q of whole sequences and the true one p, `|q - p|^2 / |p|^2`.

    It is estimated without bias, from pairs of different samples, so it scatters around 0 for exact samples. If the
    possible samples, a share v, are spread evenly, and impossible ones are hardly ever equal, it is `(1 - v)^2`; it is
    larger where some sequences come too often.

    Args:
        samples (`torch.LongTensor` of shape `(num_samples, length)`): at least 2 independent sequences.
        log_p_N (`torch.DoubleTensor` of shape `(num_samples,)`): their true log-probabilities, in nats.
        collision_probability (`float`): that two exact samples are equal, `|p|^2`.
        weights (`torch.FloatTensor` of shape `(num_samples, num_resamples)`, *optional*): see `bootstrap_weights`.

    Returns:
        `torch.DoubleTensor` of shape `(num_resamples,)`, or `(1,)` without `weights`.
    """
    w_NB = torch.ones(len(samples), 1, dtype=torch.float64) if weights is None else weights.double()
    different, place = samples.unique(dim=0, return_inverse=True)
    w_UB = w_NB.new_zeros(len(different), w_NB.shape[1]).index_add_(0, place, w_NB)
    itself_B = w_NB.square().sum(0)
    # a resample of very few samples may be one of them throughout, which has no pair
    equal_B = (w_UB.square().sum(0) - itself_B) / (w_NB.sum(0).square() - itself_B).clamp(min=1)
    true_B = (w_NB * log_p_N.exp()[:, None]).sum(0) / w_NB.sum(0)
    return (equal_B - 2 * true_B + collision_probability) / collision_probability


def distinct_valid(samples: torch.Tensor, log_p_N: torch.Tensor) -> int:
    """How many different sequences are among the possible samples."""
    return len(samples[log_p_N > -torch.inf].unique(dim=0))
