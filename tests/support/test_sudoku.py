"""Grids are sudokus, and puzzles give as many cells of them as asked."""

import pytest
import torch

from lsd_sampler.support.sudoku import is_solved, random_grids, random_puzzles


@pytest.mark.parametrize("size", [4, 6, 9])
def test_grids_are_sudokus_and_one_changed_cell_is_not(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    grids = random_grids(50, size, generator, "cpu")
    assert grids.shape == (50, size * size) and bool((grids.sort(1).values.view(50, size, size).diff() == 0).all())
    assert bool(is_solved(grids, size).all())
    place = torch.randint(size * size, (50, 1), generator=generator)
    assert not bool(is_solved(grids.scatter(1, place, (grids.gather(1, place) + 1) % size), size).any())


@pytest.mark.parametrize("clues", [0, 5, 15])
def test_puzzles_give_so_many_cells_at_random(clues: int) -> None:
    grids, given = random_puzzles(400, 4, clues, torch.Generator().manual_seed(0))
    assert bool((given.sum(1) == clues).all()) and bool(is_solved(grids, 4).all())
    # each cell is given in a share clues / 16 of the puzzles, to five standard errors: one false alarm in 10^5
    share, error = clues / 16, 5 * (clues / 16 * (1 - clues / 16) / 400) ** 0.5
    assert bool(((given.double().mean(0) - share).abs() <= error).all())
