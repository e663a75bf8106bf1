"""Counts of the n-grams of texts and of token ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F

from ..sampling.left_out import LEFT_OUT


Samples = Sequence[str] | torch.Tensor | np.ndarray | Sequence[Sequence[int]]

SYMBOL_BITS = 21  # Unicode needs 21 bits, and three symbols fit into 64
LEFT_OUT_CHARACTER = "\uffff"
"""Plays the role in texts that `LEFT_OUT` (-1) plays among ids: n-grams that contain it are not counted. Unicode has
no such character.
"""


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


def ngram_counts(samples: Samples, n: int) -> NgramCounts:
    """Counts the n-grams of characters (texts) or tokens (ids). No n-gram crosses from one sample into the next.

    Args:
        samples: texts, or token ids as an array or tensor of shape `(num_samples, length)` or as ragged lists;
            `LEFT_OUT` stands for what does not count, and for what lies behind the end.
        n (`int`): length of the n-grams, at least 1.

    Raises:
        ValueError: if `n < 1`, or `samples` hold no n-gram of that length, or ids outside [0, 2^21).
    """
    if n < 1:
        raise ValueError(f"`n` must be at least 1, got {n}.")
    if len(samples) == 0:
        raise ValueError("`samples` must not be empty.")
    symbols, lengths = _flatten(samples)
    starts, owners = _inside(lengths, n, symbols == _ABSENT)
    if not len(starts):
        raise ValueError(f"`samples` hold no {n}-gram: each is shorter than {n}.")
    packed = _pack(symbols, n)[starts]
    order = np.argsort(packed, kind="stable")
    packed = packed[order]
    first = np.flatnonzero(np.concatenate([[True], packed[1:] != packed[:-1]]))
    counts = np.diff(np.append(first, len(packed)))
    return NgramCounts(n, packed[first], counts, owners[order], len(lengths))


def context_counts(samples: Samples, n: int) -> np.ndarray:
    """How often each distinct sequence of `n - 1` symbols begins an n-gram, as an `int64` array.

    Raises:
        ValueError: as `ngram_counts`, or if `n < 2`.
    """
    if n < 2:
        raise ValueError(f"`n` must be at least 2, got {n}.")
    symbols, lengths = _flatten(samples)
    starts, _ = _inside(lengths, n, symbols == _ABSENT)
    if not len(starts):
        raise ValueError(f"`samples` hold no {n}-gram: each is shorter than {n}.")
    return np.unique(_pack(symbols, n - 1)[starts], return_counts=True)[1]


def _flatten(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """All symbols in a row, as uint64 (`_ABSENT` for what is left out), and the number of symbols of each sample."""
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
            symbols = np.frombuffer(data, dtype="<u4").astype(np.int64)
            symbols[symbols == ord(LEFT_OUT_CHARACTER)] = LEFT_OUT
        else:
            symbols = np.concatenate([np.asarray(sample, dtype=np.int64) for sample in samples])
    if symbols.size and (symbols.min() < LEFT_OUT or symbols.max() >= 1 << SYMBOL_BITS):
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


def _inside(lengths: np.ndarray, n: int, is_absent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts of the n-grams that lie inside one sample and hold nothing absent, and the sample of each."""
    owners = np.repeat(np.arange(len(lengths)), lengths)
    num_starts = max(len(owners) - n + 1, 0)
    inside = owners[:num_starts] == owners[n - 1 :]
    if is_absent.any():
        for offset in range(n):
            inside &= ~is_absent[offset : offset + num_starts]
    starts = np.flatnonzero(inside)
    return starts, owners[starts]


_ABSENT = np.uint64(2**64 - 1)  # LEFT_OUT as uint64
