"""How far samples are from a reference, in token n-grams: a distance that few samples suffice to estimate.

The Jensen-Shannon divergence of raw n-gram counts is dominated by the n-grams that were never seen. Their number
shrinks with the entropy of the samples, so a few samples of the right law look worse than a few of one that is too
cold. N-grams are therefore pooled first. Each frequent one has a cell of its own; the others share a cell with those
that are about as frequent in the reference, or absent from it. There are few cells, and all are well filled, so the
estimate is nearly unbiased. It is a lower bound of the divergence of the n-grams (data processing). It is two-sided:
samples may hold too much or too little of what is rare in the reference.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch

from ..sampling.left_out import LEFT_OUT


BUCKETS = 2**18
"""Number of buckets that n-grams are hashed into; those that collide count as one."""
OWN_CELL = 32
"""An n-gram with at least this many occurrences, both in the reference and in as many sequences as are judged, has a
cell of its own.
"""
_ODD = 0x9E3779B97F4A7C15 - 2**64  # 2^64 / golden ratio, as int64: spreads the bits of a product


def patterns(row_length: int | None = None) -> tuple[tuple[int, ...], ...]:
    """Places of the tokens of each kind of n-gram: single ones, two kinds of pairs, triples.

    Args:
        row_length (`int`, *optional*): of images; the token below then takes the place of the next but one.
    """
    below = row_length or 2
    return (0,), (0, 1), (0, below), (0, 1, below)


def has_ngrams(tokens_NL: torch.Tensor, row_length: int | None = None) -> torch.Tensor:
    """Which sequences have an n-gram without `LEFT_OUT` of each kind that they are long enough for."""
    kinds = [p for p in patterns(row_length) if p[-1] < tokens_NL.shape[1]]
    return torch.stack([_whole(tokens_NL, pattern).any(1) for pattern in kinds]).all(0)


@dataclass(frozen=True)
class CellDistance:
    """The distance of samples from a reference: the sum over patterns of the Jensen-Shannon divergences between cells.

    Args:
        patterns: see [`patterns`].
        cell_PK (`torch.LongTensor` of shape `(num_patterns, BUCKETS)`): cell of each n-gram, numbered across patterns.
        num_cells (`int`): number of cells of all patterns together.
        reference_NC (`torch.DoubleTensor` of shape `(num_references, num_cells)`): share of each cell in each
            reference sequence; the shares of one pattern add up to 1.
    """

    patterns: tuple[tuple[int, ...], ...]
    cell_PK: torch.Tensor
    num_cells: int
    reference_NC: torch.Tensor

    @classmethod
    def make(
        cls, guide_NL: torch.Tensor, reference_NL: torch.Tensor, num_samples: int, row_length: int | None = None
    ) -> Self:
        """Cells by the counts in some sequences, to compare with others.

        Args:
            guide_NL (`torch.LongTensor` of shape `(num, seq_len)`): real sequences, whose n-grams decide the cells.
            reference_NL (`torch.LongTensor` of shape `(num_references, seq_len)`): others, to compare with.
            num_samples (`int`): how many samples will be judged.
            row_length (`int`, *optional*): of images.
        """
        found = tuple(p for p in patterns(row_length) if p[-1] < guide_NL.shape[1])
        rows, first = [], 0
        for pattern in found:
            whole_J = _whole(guide_NL, pattern)
            count_K = torch.bincount(_buckets(guide_NL, pattern)[whole_J], minlength=BUCKETS)
            is_own_K = count_K >= OWN_CELL * max(1, len(guide_NL) / num_samples)
            # 0: not in the guide; k: seen [2^(k - 1), 2^k) times
            level_K = (2 * count_K).double().clamp(min=1).log2().floor().long()
            _, cell_K = torch.where(is_own_K, 64 + torch.arange(BUCKETS), level_K).unique(return_inverse=True)
            rows.append(first + cell_K)
            first = int(rows[-1].max()) + 1
        distance = cls(found, torch.stack(rows), first, torch.empty(0))
        return cls(found, distance.cell_PK, first, distance.shares(reference_NL))

    def shares(self, samples_NL: torch.Tensor) -> torch.Tensor:
        """The share of each cell in each sequence, `(N, num_cells)`, float64; without n-grams with a `LEFT_OUT`."""
        shares_NC = torch.zeros(len(samples_NL), self.num_cells, dtype=torch.float64)
        for pattern, cell_K in zip(self.patterns, self.cell_PK, strict=True):
            cell_NJ = cell_K[_buckets(samples_NL, pattern)]
            whole_NJ = _whole(samples_NL, pattern).double()
            shares_NC.scatter_add_(1, cell_NJ, whole_NJ / whole_NJ.sum(1, keepdim=True))
        return shares_NC

    def __call__(self, samples_NL: torch.Tensor) -> float:
        """The distance in nats."""
        p_C, q_C = self.shares(samples_NL).mean(0), self.reference_NC.mean(0)
        m_C = (p_C + q_C) / 2
        return float(((torch.xlogy(p_C, p_C) + torch.xlogy(q_C, q_C)) / 2 - torch.xlogy(m_C, m_C)).sum().clamp(min=0))

    def difference(self, new_NL: torch.Tensor, old_NL: torch.Tensor) -> tuple[float, float]:
        """How much further away `new` is than `old`, and the standard error of that (delta method), over samples that
        belong together (row i of both) and over the reference.
        """
        q_C = self.reference_NC.mean(0)
        new_NC, old_NC = self.shares(new_NL), self.shares(old_NL)
        slopes = [_log_ratio(shares.mean(0), q_C) for shares in (new_NC, old_NC)]
        of_samples_N = new_NC @ slopes[0] - old_NC @ slopes[1]
        slopes = [_log_ratio(q_C, shares.mean(0)) for shares in (new_NC, old_NC)]
        of_reference_N = self.reference_NC @ (slopes[0] - slopes[1])
        variance = sum(float(x_N.var()) / len(x_N) for x_N in (of_samples_N, of_reference_N))
        return self(new_NL) - self(old_NL), math.sqrt(variance)


def _buckets(tokens_NL: torch.Tensor, pattern: tuple[int, ...]) -> torch.Tensor:
    """The bucket of each n-gram, `(N, L - last place)`."""
    starts = tokens_NL.shape[1] - pattern[-1]
    hash_NJ = torch.zeros(len(tokens_NL), starts, dtype=torch.int64)
    for place in pattern:
        hash_NJ = (hash_NJ + tokens_NL[:, place : place + starts] + 1) * _ODD
        hash_NJ = hash_NJ ^ ((hash_NJ >> 32) & 0xFFFFFFFF)
    return hash_NJ % BUCKETS


def _whole(tokens_NL: torch.Tensor, pattern: tuple[int, ...]) -> torch.Tensor:
    """Which n-grams have no `LEFT_OUT`, `(N, L - last place)`."""
    starts = tokens_NL.shape[1] - pattern[-1]
    return torch.stack([tokens_NL[:, place : place + starts] != LEFT_OUT for place in pattern]).all(0)


def _log_ratio(p_C: torch.Tensor, q_C: torch.Tensor) -> torch.Tensor:
    """The derivative of the divergence in p; 0 where p is 0, because nothing is resampled there."""
    return torch.where(p_C > 0, torch.log(2 * p_C / (p_C + q_C)) / 2, 0.0)
