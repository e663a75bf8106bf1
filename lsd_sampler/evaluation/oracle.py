"""Exact quality of samples from a first-order Markov chain, whose law is known (section 7 of the method's
description).

`P[a, b]` is the probability of b after a. None of these metrics can be won by lowering the entropy of the samples.
"""

import numpy as np
import torch

from ..denoisers.markov import stationary_law
from ..sampling.left_out import LEFT_OUT
from .bootstrap import RESAMPLES_AT_ONCE
from .ngrams import SYMBOL_BITS, NgramCounts, ngram_counts


# A transition of probability zero would make the divergence infinite. It is charged -log(1e-12) = 27.6 nats instead.
# This floor gives 4.20, 1.74, 0.70, 0.28 nats for countdown (V = 32, L = 128), random order, uniform steps, at 4, 8,
# 16, 32 network calls.
PROBABILITY_FLOOR = 1e-12


def check_transition(transition: torch.Tensor) -> torch.Tensor:
    """`transition` as a float64 CPU tensor of shape `(vocab, vocab)`.

    Raises:
        ValueError: if it is not square, has a negative or non-finite entry, or a row that does not sum to 1.
    """
    matrix = torch.as_tensor(transition).detach().to("cpu", torch.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"`transition` must have shape (vocab, vocab), got {tuple(matrix.shape)}.")
    if not (torch.isfinite(matrix).all() and (matrix >= 0).all()):
        raise ValueError("`transition` must hold finite, non-negative probabilities.")
    worst = (matrix.sum(1) - 1).abs().max().item()
    if worst > 1e-6:
        raise ValueError(f"`transition` must have rows that sum to 1, one is off by {worst:.3g}.")
    return matrix


def _law_of_current(matrix: torch.Tensor, initial: torch.Tensor | None, num_transitions: int) -> torch.Tensor:
    """Law of the state that a transition starts from, over all places of a sequence; float64 of shape `(vocab,)`."""
    if initial is None:
        return stationary_law(matrix)
    if initial.shape != (len(matrix),):
        raise ValueError(f"`initial` must have shape ({len(matrix)},), got {tuple(initial.shape)}.")
    law, total = initial.detach().to("cpu", torch.float64), torch.zeros(len(matrix), dtype=torch.float64)
    for _ in range(num_transitions):
        total, law = total + law, law @ matrix
    return total / num_transitions


def _check_samples(samples: torch.Tensor, vocab: int) -> torch.Tensor:
    if samples.ndim != 2 or samples.shape[0] < 1 or samples.shape[1] < 2:
        raise ValueError(f"`samples` must have shape (num_samples, length >= 2), got {tuple(samples.shape)}.")
    if samples.is_floating_point():
        raise ValueError(f"`samples` must hold integers, got {samples.dtype}.")
    states = samples[~_behind_the_end(samples)]
    if not len(states) or states.min() < 0 or states.max() >= vocab:
        raise ValueError(f"`samples` must hold states in [0, {vocab}), got {samples.min()} to {samples.max()}.")
    return samples.detach().cpu()


def _behind_the_end(samples: torch.Tensor) -> torch.Tensor:
    """Where shorter samples are filled up with `LEFT_OUT`, behind their own end; bool of the same shape."""
    return (samples == LEFT_OUT).flip(1).long().cumprod(1).flip(1).bool()


def _pairs(counts: NgramCounts) -> tuple[torch.Tensor, torch.Tensor]:
    current = torch.from_numpy((counts.keys >> np.uint64(SYMBOL_BITS)).astype(np.int64))
    return current, torch.from_numpy((counts.keys & np.uint64((1 << SYMBOL_BITS) - 1)).astype(np.int64))


def _statistics(
    pairs_KB: torch.Tensor, current_K: torch.Tensor, p_K1: torch.Tensor, law_V: torch.Tensor, floor: float
) -> dict[str, torch.Tensor]:
    """The statistics of each column of pair counts, float64 of shape `(B,)` each."""
    joint_KB = pairs_KB / pairs_KB.sum(0)
    current_VB = joint_KB.new_zeros(len(law_V), joint_KB.shape[1]).index_add_(0, current_K, joint_KB)
    entropy = torch.special.entr(joint_KB).sum(0) - torch.special.entr(current_VB).sum(0)
    true_K1 = law_V[current_K, None] * p_K1
    unseen = 1 - true_K1.sum()
    cross_entropy = -(joint_KB * p_K1.clamp(min=floor).log()).sum(0)
    return {
        "forbidden_share": (joint_KB * (p_K1 == 0)).sum(0),
        "cross_entropy": cross_entropy,
        "reverse_kl": cross_entropy - entropy,
        "bigram_tv": 0.5 * ((joint_KB - true_K1).abs().sum(0) + unseen),
        "conditional_entropy": entropy,
    }


def oracle_statistics(
    samples: torch.Tensor,
    transition: torch.Tensor,
    weights: torch.Tensor | None = None,
    floor: float = PROBABILITY_FLOOR,
    initial: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """All statistics of the samples' transitions at once, or of bootstrap resamples of whole sequences.

    Args:
        samples (`torch.LongTensor` of shape `(num_samples, length)`): states of the chain, no mask left; shorter
            samples are filled up with `LEFT_OUT` (-1).
        transition (`torch.DoubleTensor` of shape `(vocab, vocab)`): `P[a, b]`, the probability of b after a.
        weights (`torch.FloatTensor` of shape `(num_samples, num_resamples)`, *optional*): see `bootstrap_weights`.
        floor (`float`): the probability at which a forbidden transition is charged.
        initial (`torch.DoubleTensor` of shape `(vocab,)`, *optional*): law of the first token; default: the stationary
            law. Only `bigram_tv` depends on it.

    Returns:
        `forbidden_share`, `cross_entropy` under P, `reverse_kl`, `bigram_tv` and `conditional_entropy` (entropies and
        divergences per transition, in nats), each a `torch.DoubleTensor` of shape `(num_resamples,)`, or `(1,)`
        without `weights`.

    Raises:
        ValueError: if `samples` or `transition` is malformed, or a state lies outside the vocabulary.
    """
    matrix = check_transition(transition)
    counts = ngram_counts(_check_samples(samples, len(matrix)), 2)
    if weights is None:
        blocks = [torch.from_numpy(counts.counts)[:, None].double()]
    else:
        blocks = [counts.resampled(block) for block in weights.split(RESAMPLES_AT_ONCE, dim=1)]
    current_K, next_K = _pairs(counts)
    p_K1, law_V = matrix[current_K, next_K][:, None], _law_of_current(matrix, initial, samples.shape[1] - 1)
    parts = [_statistics(block, current_K, p_K1, law_V, floor) for block in blocks]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def forbidden_share(samples: torch.Tensor, transition: torch.Tensor) -> float:
    """Share of the samples' transitions that have probability zero under `transition`.

    On *countdown* it is the paper's error by token: the share of tokens, the first of each sample apart, that break
    the rule.
    """
    return float(oracle_statistics(samples, transition)["forbidden_share"])


def reverse_kl_per_transition(
    samples: torch.Tensor, transition: torch.Tensor, floor: float = PROBABILITY_FLOOR
) -> float:
    """Cross-entropy of the samples' transitions under P minus their own H(next | current), per transition, in nats.

    It is the plug-in divergence of the samples' empirical chain from P, never negative (but for the floor). For
    samples of the chain itself it is not 0 but, times 2 n (n transitions), chi-square with d = sum over states of
    (possible successors - 1) degrees of freedom: about d / (2 n), 1e-4 for countdown with V = 32 and 1,000 sequences
    of 128.
    """
    return float(oracle_statistics(samples, transition, floor=floor)["reverse_kl"])


def bigram_tv(samples: torch.Tensor, transition: torch.Tensor, initial: torch.Tensor | None = None) -> float:
    """Total variation, in [0, 1], of the law of adjacent pairs from the chain's (stationary without `initial`)."""
    return float(oracle_statistics(samples, transition, initial=initial)["bigram_tv"])


def forbidden_samples(samples: torch.Tensor, transition: torch.Tensor) -> float:
    """Share of the samples with a transition of probability zero: on *countdown*, the paper's error by sample."""
    matrix = check_transition(transition)
    samples = _check_samples(samples, len(matrix))
    is_forbidden = (matrix[samples[:, :-1], samples[:, 1:]] == 0) & (samples[:, 1:] != LEFT_OUT)
    return float(is_forbidden.any(1).double().mean())
