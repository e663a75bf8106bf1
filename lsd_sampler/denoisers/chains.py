"""Chains to measure samplers on: of first order, random or of a text; of second order; and with hidden states."""

import lzma
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .hidden_markov import HiddenMarkovDenoiser
from .markov import random_laws, stationary_law


LETTERS = " abcdefghijklmnopqrstuvwxyz"
SMOOTHING = 1e-8
"""Added to the counts of pairs of letters, so that none is impossible."""


def hidden_chain(
    num_tokens: int = 27,
    length: int = 128,
    *,
    num_states: int = 0,
    num_successors: int = 0,
    eps: float = 0.0,
    seed: int = 0,
) -> HiddenMarkovDenoiser:
    """A random stationary chain, `(1 - eps) P_K + eps nu`. Rows of P are drawn from the flat Dirichlet law, and P_K
    keeps the K largest entries of each row. nu is the stationary law of P.

    Args:
        num_tokens (`int`): V.
        length (`int`): sequence length.
        num_states (`int`): states of a hidden chain, which emit tokens by random laws that are cut in the same way;
            0: the states are the tokens.
        num_successors (`int`): K, which holds for the emissions too; 0: all.
        eps (`float`): weight of nu.
        seed (`int`): of the laws.

    Raises:
        ValueError: if an argument is out of range.
    """
    generator = torch.Generator().manual_seed(seed)
    S = num_states or num_tokens
    transition = _smoothed(random_laws(S, S, generator), num_successors, eps)
    emission = _largest(random_laws(S, num_tokens, generator), num_successors) if num_states else None
    return HiddenMarkovDenoiser(stationary_law(transition), transition, emission, length=length)


def second_order_chain(
    num_tokens: int = 8, length: int = 64, *, num_successors: int = 0, seed: int = 0
) -> HiddenMarkovDenoiser:
    """A random stationary chain in which a token depends on the two before it; its states are pairs of tokens.

    Args:
        num_tokens (`int`): V, at most 16.
        length (`int`): sequence length.
        num_successors (`int`): how many tokens may follow a pair; 0: all.
        seed (`int`): of the law.

    Raises:
        ValueError: if an argument is out of range.
    """
    V = num_tokens
    if not 2 <= V <= 16:
        raise ValueError(f"`V` must be in [2, 16] for a chain of second order, got {V}.")
    generator = torch.Generator().manual_seed(seed)
    next_VVV = _largest(random_laws(V * V, V, generator), num_successors).view(V, V, V)
    eye = torch.eye(V, dtype=torch.float64)
    # from the pair (a, b) to the pair (b, c)
    transition = torch.einsum("abc,bd->abdc", next_VVV, eye).reshape(V * V, V * V)
    return HiddenMarkovDenoiser(stationary_law(transition), transition, eye.repeat(V, 1), length=length)


def chain_of_text(
    path: str | Path, length: int = 128, *, num_successors: int = 0, eps: float = 0.0
) -> HiddenMarkovDenoiser:
    """The chain of the pairs of letters of a text (.txt or .txt.xz): 27 tokens, a blank and a to z in lower case.

    All else is taken for blanks, and several blanks for one. nu (see [`hidden_chain`]) is the law of the letters.

    Raises:
        OSError: if the file is missing.
        ValueError: if it is no text in UTF-8 or holds no two letters; or an argument is out of range.
    """
    path = Path(path)
    opener: Any = lzma.open if path.suffix == ".xz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as stream:
            text = re.sub("[^a-z]+", " ", str(stream.read()).lower())
    except (UnicodeDecodeError, lzma.LZMAError) as error:
        raise ValueError(f"{path} is not a text in UTF-8: {error}.") from error
    if len(text) < 2:
        raise ValueError(f"{path} holds no two letters.")
    V = len(LETTERS)
    ids = np.maximum(np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64) - ord("a") + 1, 0)
    pairs = torch.from_numpy(np.bincount(ids[:-1] * V + ids[1:], minlength=V * V)).double().view(V, V) + SMOOTHING
    counts = torch.from_numpy(np.bincount(ids, minlength=V)).double()
    transition = _smoothed(pairs / pairs.sum(1, keepdim=True), num_successors, eps, counts / counts.sum())
    return HiddenMarkovDenoiser(stationary_law(transition), transition, length=length)


def _smoothed(transition: torch.Tensor, largest: int, eps: float, nu: torch.Tensor | None = None) -> torch.Tensor:
    if not 0 <= eps < 1:
        raise ValueError(f"`eps` must be in [0, 1), got {eps}.")
    nu = stationary_law(transition) if nu is None else nu
    return (1 - eps) * _largest(transition, largest) + eps * nu


def _largest(laws: torch.Tensor, number: int) -> torch.Tensor:
    if not number:
        return laws
    if not 1 <= number <= laws.shape[1]:
        raise ValueError(f"`K` must be in [0, {laws.shape[1]}], got {number}.")
    kept = laws.topk(number, dim=1)
    cut = torch.zeros_like(laws).scatter_(1, kept.indices, kept.values)
    return cut / cut.sum(1, keepdim=True)
