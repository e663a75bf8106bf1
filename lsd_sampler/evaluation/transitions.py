"""Exact quality of samples from a Markov chain, whose law is known; see docs/evaluation.md, "Chains".

`P[a, b]` is the probability of b after a. In a chain of second order, `P[V a + b, c]` is that of c after a and b.
Lowering the entropy of the samples improves none of these metrics.
"""

import numpy as np
import torch
import torch.nn.functional as F

from ..denoisers.markov import stationary_law
from ..sampling.left_out import LEFT_OUT
from .bootstrap import RESAMPLES_AT_ONCE
from .ngrams import SYMBOL_BITS, NgramCounts, ngram_counts


# A transition of probability zero would make the divergence infinite. It is charged -log(1e-12) = 27.6 nats instead.
# This floor gives 4.20, 1.74, 0.70, 0.28 nats for countdown (V = 32, L = 128), random order, uniform steps, at 4, 8,
# 16, 32 network calls.
PROBABILITY_FLOOR = 1e-12
# the same floor for `full_kl_rate`, as in arXiv 2602.19619: 69.1 nats
FULL_KL_FLOOR = 1e-30


def check_transition(transition: torch.Tensor) -> torch.Tensor:
    """`transition` as a float64 CPU tensor of shape `(vocab, vocab)` or `(vocab^2, vocab)`.

    Raises:
        ValueError: if it has another shape, a negative or non-finite entry, or a row that does not sum to 1.
    """
    matrix = torch.as_tensor(transition).detach().to("cpu", torch.float64)
    if matrix.ndim != 2 or matrix.shape[0] not in (matrix.shape[1], matrix.shape[1] ** 2):
        raise ValueError(
            f"`transition` must have shape (vocab, vocab) or (vocab^2, vocab), got {tuple(matrix.shape)}."
        )
    if not (torch.isfinite(matrix).all() and (matrix >= 0).all()):
        raise ValueError("`transition` must hold finite, non-negative probabilities.")
    worst = (matrix.sum(1) - 1).abs().max().item()
    if worst > 1e-6:
        raise ValueError(f"`transition` must have rows that sum to 1, one is off by {worst:.3g}.")
    return matrix


def _memory(matrix: torch.Tensor) -> int:
    """How many tokens a transition starts from."""
    return 1 if matrix.shape[0] == matrix.shape[1] else 2


def _law_of_current(
    matrix: torch.Tensor, initial: torch.Tensor | None, contexts: torch.Tensor | None, num_transitions: int
) -> torch.Tensor:
    """Law of what a transition starts from, over all places of a sequence; float64 of shape `(vocab^memory,)`."""
    if contexts is not None:
        if contexts.shape != (len(matrix),):
            raise ValueError(f"`contexts` must have shape ({len(matrix)},), got {tuple(contexts.shape)}.")
        return contexts.detach().to("cpu", torch.float64)
    if _memory(matrix) > 1:
        raise ValueError("`contexts` must be given with a `transition` from two tokens.")
    if initial is None:
        return stationary_law(matrix)
    if initial.shape != (len(matrix),):
        raise ValueError(f"`initial` must have shape ({len(matrix)},), got {tuple(initial.shape)}.")
    law, total = initial.detach().to("cpu", torch.float64), torch.zeros(len(matrix), dtype=torch.float64)
    for _ in range(num_transitions):
        total, law = total + law, law @ matrix
    return total / num_transitions


def _check_samples(samples: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    vocab, least = matrix.shape[1], _memory(matrix) + 1
    if samples.ndim != 2 or samples.shape[0] < 1 or samples.shape[1] < least:
        raise ValueError(f"`samples` must have shape (num_samples, length >= {least}), got {tuple(samples.shape)}.")
    if samples.is_floating_point():
        raise ValueError(f"`samples` must hold integers, got {samples.dtype}.")
    states = samples[~_behind_the_end(samples)]
    if not len(states) or states.min() < 0 or states.max() >= vocab:
        raise ValueError(f"`samples` must hold states in [0, {vocab}), got {samples.min()} to {samples.max()}.")
    return samples.detach().cpu()


def _behind_the_end(samples: torch.Tensor) -> torch.Tensor:
    """Where shorter samples are filled up with `LEFT_OUT`, behind their own end; bool of the same shape."""
    return (samples == LEFT_OUT).flip(1).long().cumprod(1).flip(1).bool()


def longest(samples: torch.Tensor) -> int:
    """The number of tokens of the longest sample, without what fills it up."""
    return int((~_behind_the_end(samples)).sum(1).max())


def _transitions(counts: NgramCounts, vocab: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The row and the column of each n-gram."""
    mask = np.uint64((1 << SYMBOL_BITS) - 1)
    current = np.zeros(len(counts.keys), dtype=np.int64)
    for place in range(counts.n - 1, 0, -1):
        symbol = (counts.keys >> np.uint64(SYMBOL_BITS * place)) & mask
        current = current * vocab + symbol.astype(np.int64)
    return torch.from_numpy(current), torch.from_numpy((counts.keys & mask).astype(np.int64))


def _statistics(
    pairs_KB: torch.Tensor, current_K: torch.Tensor, p_K1: torch.Tensor, law_V: torch.Tensor, floor: float
) -> dict[str, torch.Tensor]:
    """The statistics of each column of pair counts, float64 of shape `(B,)` each."""
    joint_KB = pairs_KB / pairs_KB.sum(0)
    current_VB = joint_KB.new_zeros(len(law_V), joint_KB.shape[1]).index_add_(0, current_K, joint_KB)
    entropy = torch.special.entr(joint_KB).sum(0) - torch.special.entr(current_VB).sum(0)
    true_K1 = law_V[current_K, None] * p_K1
    unseen = 1 - true_K1.sum()
    cross_entropy, full_cross_entropy = (-(joint_KB * p_K1.clamp(min=x).log()).sum(0) for x in (floor, FULL_KL_FLOOR))
    should_KB = current_VB[current_K] * p_K1
    missing_B = (1 - should_KB.sum(0)).clamp(min=0)
    return {
        "forbidden_share": (joint_KB * (p_K1 == 0)).sum(0),
        "cross_entropy": cross_entropy,
        "reverse_kl": cross_entropy - entropy,
        "bigram_tv": 0.5 * ((joint_KB - true_K1).abs().sum(0) + unseen),
        "conditional_entropy": entropy,
        "full_kl_rate": full_cross_entropy - entropy,
        "full_tv_rate": 0.5 * ((joint_KB - should_KB).abs().sum(0) + missing_B),
    }


def oracle_statistics(
    samples: torch.Tensor,
    transition: torch.Tensor,
    weights: torch.Tensor | None = None,
    floor: float = PROBABILITY_FLOOR,
    initial: torch.Tensor | None = None,
    contexts: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """All statistics of the samples' transitions at once, or of bootstrap resamples of whole sequences.

    Args:
        samples (`torch.LongTensor` of shape `(num_samples, length)`): states of the chain, no mask left; shorter
            samples are filled up with `LEFT_OUT` (-1).
        transition (`torch.DoubleTensor` of shape `(vocab, vocab)` or `(vocab^2, vocab)`): `P[a, b]`, the probability
            of b after a, or `P[vocab a + b, c]`, that of c after a and b.
        weights (`torch.FloatTensor` of shape `(num_samples, num_resamples)`, *optional*): see `bootstrap_weights`.
        floor (`float`): the probability at which a forbidden transition is charged.
        initial (`torch.DoubleTensor` of shape `(vocab,)`, *optional*): law of the first token; default: the stationary
            law. Only `bigram_tv` depends on it.
        contexts (`torch.DoubleTensor` of shape `(len(transition),)`, *optional*): law of what transitions start from,
            averaged over the places of a sequence. It replaces `initial`, and is needed where a transition starts
            from two tokens.

    Returns:
        `forbidden_share`, `cross_entropy` under P, `reverse_kl`, `bigram_tv` (of triples where a transition starts
        from two tokens), `conditional_entropy`, `full_kl_rate` and `full_tv_rate` (entropies and divergences per
        transition, in nats), each a `torch.DoubleTensor` of shape `(num_resamples,)`, or `(1,)` without `weights`.

    Raises:
        ValueError: if `samples` or `transition` is malformed, or a state lies outside the vocabulary.
    """
    matrix = check_transition(transition)
    counts = ngram_counts(_check_samples(samples, matrix), _memory(matrix) + 1)
    if weights is None:
        blocks = [torch.from_numpy(counts.counts)[:, None].double()]
    else:
        blocks = [counts.resampled(block) for block in weights.split(RESAMPLES_AT_ONCE, dim=1)]
    current_K, next_K = _transitions(counts, matrix.shape[1])
    law_V = _law_of_current(matrix, initial, contexts, samples.shape[1] - 1)
    p_K1 = matrix[current_K, next_K][:, None]
    parts = [_statistics(block, current_K, p_K1, law_V, floor) for block in blocks]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def kl_rate_at_distance(samples: torch.Tensor, transition: torch.Tensor, distance: int) -> float:
    r"""The full KL rate of tokens `distance` places apart, in nats per pair, against the chain's law of these.

    In a chain of first order, b follows a after d steps with probability \(P^d[a, b]\). Samples with the right
    neighbours may still be no samples of the chain: further pairs see more of that.

    Args:
        samples (`torch.LongTensor` of shape `(num_samples, length)`): as for [`oracle_statistics`].
        transition (`torch.DoubleTensor` of shape `(vocab, vocab)`): `P[a, b]`, the probability of b after a.
        distance (`int`): from 1, which gives `full_kl_rate`, to less than the length of the longest sample.

    Raises:
        ValueError: if an argument is malformed or out of range, or a transition starts from two tokens.
    """
    matrix = check_transition(transition)
    samples = _check_samples(samples, matrix)
    if _memory(matrix) > 1:
        raise ValueError("`transition` must have shape (vocab, vocab): further pairs of other chains are not known.")
    if not 1 <= distance < longest(samples):
        raise ValueError(f"`distance` must be between 1 and {longest(samples) - 1}, got {distance}.")
    padded = F.pad(samples, (0, -samples.shape[1] % distance), value=LEFT_OUT)
    apart = padded.unflatten(1, (-1, distance)).transpose(1, 2).flatten(0, 1)
    return float(oracle_statistics(apart, torch.linalg.matrix_power(matrix, distance))["full_kl_rate"])


def forbidden_share(samples: torch.Tensor, transition: torch.Tensor) -> float:
    """Share of the samples' transitions that have probability zero under `transition`.

    On *countdown* it is the paper's error by token: the share of tokens that break the rule, not counting the first
    token of each sample.
    """
    return float(oracle_statistics(samples, transition)["forbidden_share"])


def reverse_kl_per_transition(
    samples: torch.Tensor, transition: torch.Tensor, floor: float = PROBABILITY_FLOOR
) -> float:
    """Cross-entropy of the samples' transitions under P minus their own H(next | current), per transition, in nats.

    It is the plug-in divergence of the samples' empirical chain from P, which is never negative, except for the floor.
    It is not 0 for samples of the chain itself: for n transitions, 2 n times it is chi-square with d = sum over states
    of (possible successors - 1) degrees of freedom. It is then about d / (2 n), or 1e-4 for countdown with V = 32 and
    1,000 sequences of 128.
    """
    return float(oracle_statistics(samples, transition, floor=floor)["reverse_kl"])


def bigram_tv(samples: torch.Tensor, transition: torch.Tensor, initial: torch.Tensor | None = None) -> float:
    """Total variation, in [0, 1], of the law of adjacent pairs from the chain's (stationary without `initial`)."""
    return float(oracle_statistics(samples, transition, initial=initial)["bigram_tv"])


def forbidden_samples(samples: torch.Tensor, transition: torch.Tensor) -> float:
    """Share of the samples with a transition of probability zero: on *countdown*, the paper's error by sample."""
    matrix = check_transition(transition)
    samples, memory, vocab = _check_samples(samples, matrix), _memory(matrix), matrix.shape[1]
    current = samples[:, : 1 - memory or None]
    if memory > 1:
        current = current * vocab + samples[:, 1:]
    is_forbidden = (matrix[current[:, :-1], samples[:, memory:]] == 0) & (samples[:, memory:] != LEFT_OUT)
    return float(is_forbidden.any(1).double().mean())
