"""The metric set of chains."""

import torch

from lsd_sampler.denoisers.markov import MarkovDenoiser
from lsd_sampler.evaluation import OracleMetrics


def test_oracle_metrics_accept_any_chain() -> None:
    chain = MarkovDenoiser(torch.eye(3, dtype=torch.float64), length=8)
    row = OracleMetrics(chain.transition, initial=chain.initial, num_resamples=5).compute(
        torch.tensor([[0, 0, 0], [1, 1, 2]])
    )
    assert row["forbidden_share"] == 1 / 4
