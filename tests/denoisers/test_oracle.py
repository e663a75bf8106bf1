"""What every exact oracle does beside predicting."""

import math

import torch

from lsd_sampler import load_denoiser
from lsd_sampler.denoisers import Oracle


def test_clues_are_of_one_grid() -> None:
    oracle = load_denoiser("sudoku4:clues=4")
    assert isinstance(oracle, Oracle)
    canvases, truth = oracle.canvases(500, torch.Generator().manual_seed(0))
    given = canvases != oracle.mask_token_id
    assert (given.sum(1) == 4).all() and torch.equal(canvases[given], truth[given])
    assert (oracle.log_prob(truth) > -math.inf).all()
    # 500 canvases give each cell with chance 1/4: 125, and 9.7 is a standard deviation
    assert ((given.sum(0) - 125).abs() < 60).all()
    filled = oracle.fill(canvases, torch.Generator().manual_seed(1))
    assert torch.equal(filled[given], truth[given]) and (oracle.log_prob(filled) > -math.inf).all()
