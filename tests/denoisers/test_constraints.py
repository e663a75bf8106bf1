"""Sets of sequences that satisfy constraints."""

import torch

from lsd_sampler.denoisers import colouring, linear_code, sudoku4


def test_sudoku_grids() -> None:
    grids = sudoku4().sequences.view(-1, 4, 4)
    assert len(grids) == len(grids.unique(dim=0)) == 288
    for r, c in ((0, 0), (0, 2), (2, 0), (2, 2)):
        block = grids[:, r : r + 2, c : c + 2].flatten(1)
        assert (block.sort(-1).values == torch.arange(4)).all()
    for lines in (grids, grids.transpose(1, 2)):
        assert (lines.sort(-1).values == torch.arange(4)).all()


def test_linear_codes_are_closed_under_addition() -> None:
    words = linear_code(10, 4, seed=3).sequences
    sums = (words[:, None] ^ words).flatten(0, 1)
    assert len(words) == 16 == len(torch.cat([words, sums]).unique(dim=0))


def test_colourings_of_a_grid() -> None:
    """Numbers of 3-colourings of small grids, from their chromatic polynomials."""
    assert [colouring(n, n, 3).num_valid for n in (1, 2, 3)] == [3, 18, 246]
    assert colouring(2, 2, 4).num_valid == 84
