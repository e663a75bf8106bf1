"""What a token costs under a prediction, in nats."""

import pytest
import torch

from lsd_sampler.training.cross_entropy import MAX_NATS, cross_entropy


EXCLUDED = 4


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0])
def test_it_is_that_of_the_softmax_without_the_mask(beta: float) -> None:
    logits_BLV = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    row_R, position_R = torch.tensor([0, 0, 2, 1]), torch.tensor([1, 4, 0, 3])
    token_R = torch.tensor([0, 5, 3, 2])
    kept = [v for v in range(6) if v != EXCLUDED]
    log_p_RV = (beta * logits_BLV[row_R, position_R][:, kept]).log_softmax(-1)
    expected = -log_p_RV.gather(1, torch.tensor([[kept.index(v)] for v in token_R.tolist()]))[:, 0]
    torch.testing.assert_close(cross_entropy(logits_BLV, row_R, position_R, token_R, EXCLUDED, beta), expected)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_an_impossible_token_costs_the_most(beta: float) -> None:
    logits_BLV = torch.tensor([[[0.0, -torch.inf, 0.0]]])
    first = torch.zeros(1, dtype=torch.long)
    assert cross_entropy(logits_BLV, first, first, torch.tensor([1]), None, beta).tolist() == [MAX_NATS]


def test_no_rows_cost_nothing() -> None:
    none = torch.zeros(0, dtype=torch.long)
    nats = cross_entropy(torch.zeros(1, 1, 3), none, none, none, None)
    assert nats.shape == (0,) and nats.dtype == torch.float64
