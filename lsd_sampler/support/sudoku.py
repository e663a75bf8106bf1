"""Sudokus of 4 x 4, 6 x 6 and 9 x 9 cells, row by row: whether they are solved, random ones, and puzzles."""

import math

import torch


BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
"""Side of a grid -> height and width of a box."""


def peers(size: int, device: str) -> torch.Tensor:
    """Which cells share a row, a column or a box: `(size ** 2, size ** 2)`, a cell with itself included."""
    height, width = BOXES[size]
    cells = torch.arange(size * size, device=device)
    rows, columns = cells // size, cells % size
    boxes = rows // height * size + columns // width
    return torch.stack([part[:, None] == part for part in (rows, columns, boxes)]).any(0)


def random_grids(count: int, size: int, generator: torch.Generator, device: str) -> torch.Tensor:
    """Complete grids `(count, size ** 2)` of digits from 0.

    Cell by cell: one of those with the fewest candidates, and one of its candidates, both at random. Grids that run
    into a contradiction are thrown away. (So grids are not quite equally likely.)
    """
    finished, number = [], 0
    while number < count:
        grids = _attempt(min(count, 20_000), size, generator, device)
        finished.append(grids)
        number += len(grids)
    return torch.cat(finished)[:count]


def _attempt(count: int, size: int, generator: torch.Generator, device: str) -> torch.Tensor:
    def random(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator, device=device)

    peers_LL, every, L = peers(size, device), torch.arange(count, device=device), size * size
    allowed_NLV = torch.ones(count, L, size, dtype=torch.bool, device=device)
    grids_NL = torch.full((count, L), -1, device=device)
    for _ in range(L):
        candidates_NL = allowed_NLV.sum(2) + random(count, L)
        cell_N = candidates_NL.masked_fill(grids_NL >= 0, math.inf).argmin(1)
        digit_N = (random(count, size) * allowed_NLV[every, cell_N]).argmax(1)
        grids_NL[every, cell_N] = digit_N
        taken_NLV = peers_LL[cell_N][:, :, None] & (digit_N[:, None] == torch.arange(size, device=device))[:, None]
        allowed_NLV &= ~taken_NLV
    return grids_NL[is_solved(grids_NL, size)]


def is_solved(grids: torch.Tensor, size: int) -> torch.Tensor:
    """Whether no digit occurs twice in a row, a column or a box: `(count,)`, of grids `(count, size ** 2)`."""
    pairs_LL = peers(size, str(grids.device)).fill_diagonal_(False)
    return torch.cat([((x[:, :, None] == x[:, None]) & pairs_LL).flatten(1).any(1).logical_not() for x in
                      grids.split(2000)])  # fmt: skip


def random_puzzles(count: int, size: int, clues: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Random complete grids, and at random the same number of cells of each that are given.

    A puzzle may have several solutions.

    Returns:
        the grids, and whether each cell is given: `(count, size ** 2)` each.
    """
    grids_NL = random_grids(count, size, generator, "cpu")
    place_NL = torch.rand(grids_NL.shape, generator=generator, dtype=torch.float64).argsort(1).argsort(1)
    return grids_NL, place_NL < clues
