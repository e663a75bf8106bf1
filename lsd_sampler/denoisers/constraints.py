"""Sets of sequences to measure samplers on, each with its own kind of constraint. They are made, not stored."""

import itertools
from collections.abc import Iterator

import torch

from .hidden_markov import HiddenMarkovDenoiser
from .table import TableDenoiser


MAX_SEQUENCES = 2**18

_HAMMING = [[1, 0, 0, 0, 0, 1, 1], [0, 1, 0, 0, 1, 0, 1], [0, 0, 1, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1, 1]]


def sudoku4() -> TableDenoiser:
    """The 288 sudoku grids of size 4 x 4, row by row: each of four tokens once in each row, column and 2 x 2 block."""
    lines = torch.tensor(list(itertools.permutations(range(4))))
    grids = lines[:, None]
    for _ in range(3):
        grids = torch.cat([grids.repeat_interleave(24, dim=0), lines.repeat(len(grids), 1)[:, None]], dim=1)
        grids = grids[_all_different(grids.transpose(1, 2))]
    blocks = grids.view(-1, 2, 2, 2, 2).transpose(2, 3).reshape(-1, 4, 4)
    return TableDenoiser(grids[_all_different(blocks)].flatten(1))


def colouring(height: int = 4, width: int = 4, num_colours: int = 3) -> TableDenoiser:
    """All colourings of a grid in which neighbours, across and down, differ. Row by row.

    Raises:
        ValueError: if there are none, or more than 2^18.
    """
    if min(height, width) < 1 or num_colours < 1:
        raise ValueError(f"`H`, `W` and `V` must be at least 1, got {height}, {width}, {num_colours}.")
    grids = torch.zeros(1, 0, dtype=torch.int64)
    for cell in range(height * width):
        colour = torch.arange(num_colours).repeat(len(grids))
        grids = torch.cat([grids.repeat_interleave(num_colours, dim=0), colour[:, None]], dim=1)
        differs = torch.ones(len(grids), dtype=torch.bool)
        for distance, exists in ((1, cell % width > 0), (width, cell >= width)):
            differs &= grids[:, cell - distance] != colour if exists else True
        grids = grids[differs]
        if not 1 <= len(grids) <= MAX_SEQUENCES:
            number = "no colouring" if not len(grids) else f"more than {MAX_SEQUENCES:,} colourings"
            raise ValueError(f"{number} with V={num_colours} of a grid of H={height}, W={width}.")
    return TableDenoiser(grids, vocab_size=num_colours)


def hamming() -> TableDenoiser:
    """The 16 words of the [7, 4] Hamming code: any two bits are independent, so pairs show no dependence at all."""
    return TableDenoiser(_words(torch.tensor(_HAMMING)), vocab_size=2)


def linear_code(length: int = 12, dimension: int = 6, seed: int = 0) -> TableDenoiser:
    """The words of a random linear code over two tokens: its checks are parities of about half of the free positions.

    Args:
        length (`int`): n.
        dimension (`int`): k, at most 16: there are 2^k words.
        seed (`int`): of the generator matrix `[1 | A]`, whose columns are then shuffled.

    Raises:
        ValueError: if an argument is out of range.
    """
    if not 1 <= dimension <= min(length, 16):
        raise ValueError(f"`K` must be in [1, {min(length, 16)}], got {dimension}.")
    generator = torch.Generator().manual_seed(seed)
    checks = torch.randint(2, (dimension, length - dimension), generator=generator)
    matrix = torch.cat([torch.eye(dimension, dtype=torch.int64), checks], dim=1)
    return TableDenoiser(_words(matrix[:, torch.randperm(length, generator=generator)]), vocab_size=2)


def shuffle(length: int = 4) -> TableDenoiser:
    """All orders of `length` different tokens: ParallelBench's *shuffle* (https://arxiv.org/abs/2510.04767, sec. 4).

    Raises:
        ValueError: if the length is not in [2, 8].
    """
    if not 2 <= length <= 8:
        raise ValueError(f"`L` must be in [2, 8], got {length}.")
    return TableDenoiser(torch.tensor(list(itertools.permutations(range(length)))))


def replace_one(length: int = 4) -> TableDenoiser:
    """A list in which one random word becomes a new one: ParallelBench's *replace random*
    (https://arxiv.org/abs/2510.04767, sec. 4). Token 0 stands for the word that was there, 1 for the new one.

    Raises:
        ValueError: if the length is not in [2, 4096].
    """
    if not 2 <= length <= 4096:
        raise ValueError(f"`L` must be in [2, 4096], got {length}.")
    return TableDenoiser(torch.eye(length, dtype=torch.int64))


def brackets(length: int = 24, depth: int = 3, num_kinds: int = 2) -> HiddenMarkovDenoiser:
    """All sequences of brackets that close in the right order, nested no deeper than `depth`: a regular language.

    Tokens 0 to `num_kinds - 1` open, the others close in the same order.

    Raises:
        ValueError: if an argument is out of range.
    """
    if length < 2 or length % 2 or depth < 1 or num_kinds < 1:
        raise ValueError(
            f"`L` must be even, `depth` and `kinds` at least 1, got L={length}, depth={depth}, kinds={num_kinds}."
        )
    if sum(num_kinds**k for k in range(depth + 1)) * num_kinds > 2048:
        raise ValueError(f"depth={depth} with kinds={num_kinds} has too many states: take fewer.")
    # a state is the brackets that are open after a token, and that token
    states: dict[tuple[tuple[int, ...], int], int] = {}
    edges, first = [], list(_moves((), depth, num_kinds))
    waiting = list(first)
    while waiting:
        state = waiting.pop()
        if state in states:
            continue
        states[state] = len(states)
        following = list(_moves(state[0], depth, num_kinds))
        edges += [(state, after) for after in following]
        waiting += following
    start, end = torch.zeros(2, len(states), dtype=torch.float64)
    transition, emission = torch.zeros(len(states), len(states)), torch.zeros(len(states), 2 * num_kinds)
    start[[states[state] for state in first]] = 1
    for state, after in edges:
        transition[states[state], states[after]] = 1
    for (opened, token), index in states.items():
        emission[index, token] = 1
        end[index] = not opened
    return HiddenMarkovDenoiser(start, transition, emission, end, length)


def _moves(opened: tuple[int, ...], depth: int, num_kinds: int) -> Iterator[tuple[tuple[int, ...], int]]:
    if len(opened) < depth:
        yield from (((*opened, kind), kind) for kind in range(num_kinds))
    if opened:
        yield opened[:-1], num_kinds + opened[-1]


def _all_different(groups: torch.Tensor) -> torch.Tensor:
    """Whether no two entries of any of the groups, `(N, groups, size)`, are equal."""
    return (groups.sort(-1).values.diff(dim=-1) != 0).all(-1).all(-1)


def _words(generator_KL: torch.Tensor) -> torch.Tensor:
    messages = torch.cartesian_prod(*[torch.arange(2)] * len(generator_KL)).view(-1, len(generator_KL))
    return messages @ generator_KL % 2
