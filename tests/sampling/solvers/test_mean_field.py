"""Mean-field conflict suppression, against its formulas position by position."""

import math

import pytest
import torch

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.solvers.mean_field import commitments, leads, overlaps


MASK = 4


def laws(batch: int = 3, num: int = 5, vocab: int = 4, seed: int = 0) -> torch.Tensor:
    logits = 2 * torch.randn(batch, num, vocab, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return logits.softmax(-1)


def divergence(p: torch.Tensor, q: torch.Tensor) -> float:
    """Jensen-Shannon, in bits."""
    m = (p + q) / 2
    return float((p * (p / m).log() + q * (q / m).log()).sum()) / 2 / math.log(2)


def by_hand(p_NV: torch.Tensor, rounds: int) -> list[float]:
    N = len(p_NV)
    overlap = [[0.0 if i == j else 1 - divergence(p_NV[i], p_NV[j]) for j in range(N)] for i in range(N)]
    most = max(map(max, overlap))
    lead = [float(p.log().sort(descending=True).values.diff()[0].neg()) for p in p_NV]
    commit = [1 / (1 + math.exp(-c)) for c in lead]
    for _ in range(rounds):
        conflict = [sum(overlap[i][j] / most * commit[j] for j in range(N)) for i in range(N)]
        commit = [1 / (1 + math.exp(d - c)) for c, d in zip(lead, conflict, strict=True)]
    return commit


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_rounds(rounds: int) -> None:
    p_BNV = laws()
    expected = torch.tensor([by_hand(p_NV, rounds) for p_NV in p_BNV], dtype=torch.float64)
    torch.testing.assert_close(commitments(p_BNV, rounds), expected)


def test_full_overlap_swings() -> None:
    """8 equal laws with a lead of 4 nats: the published two rounds end near the start, three suppress all."""
    rest = math.exp(-4) / (1 + 2 * math.exp(-4))
    p = torch.tensor([1 - 2 * rest, rest, rest], dtype=torch.float64).expand(1, 8, 3)
    by_round = [float(commitments(p, rounds)[0, 0]) for rounds in (1, 2, 3, 4)]
    assert [round(q, 2) for q in by_round] == [0.05, 0.97, 0.06, 0.97]


def test_without_rounds_it_goes_on_until_nothing_changes() -> None:
    p_BNV = laws(seed=3)
    commit = commitments(p_BNV, 0)
    expected = (leads(p_BNV) - (overlaps(p_BNV) @ commit[..., None])[..., 0]).sigmoid()
    torch.testing.assert_close(commit, expected, rtol=1e-6, atol=1e-6)


def test_sequences_of_unequal_length() -> None:
    p_BNV = laws(batch=2)
    p_BNV[1, 3:] = 0
    commit = commitments(p_BNV, 2)
    torch.testing.assert_close(commit[1, :3], commitments(p_BNV[1:, :3], 2)[0])
    torch.testing.assert_close(commit[0], commitments(p_BNV[:1], 2)[0])


def test_certain_and_single_positions() -> None:
    certain = torch.tensor([[[1.0, 0, 0]]], dtype=torch.float64)
    assert commitments(certain, 2).tolist() == [[1.0]] and overlaps(certain).tolist() == [[[0.0]]]


def test_what_is_committed_is_revealed() -> None:
    """Two positions with the same clear prediction suppress each other in one round; the third is its own."""
    p = torch.tensor([[0.93, 0.05, 0.01, 0.01], [0.93, 0.05, 0.01, 0.01], [0.01, 0.01, 0.9, 0.08]])
    expected = {1: [2], 2: [0, 1, 2]}
    for rounds, revealed in expected.items():
        commit = torch.tensor(by_hand(p.double(), rounds))
        threshold = float(commit[revealed].min()) - 1e-6
        options = {"rounds": rounds, "threshold": threshold}
        scheduler = LSDScheduler(mask_token_id=MASK, solver="mean_field", solver_options=options)
        scheduler.set_timesteps(3)
        out = scheduler.step(p.double().log()[None], 0, torch.full((1, 3), MASK), temperature=0.0)
        assert out.transfer_index[0].nonzero()[:, 0].tolist() == revealed
    scheduler = LSDScheduler(mask_token_id=MASK, solver="mean_field", solver_options={"threshold": 1.0})
    scheduler.set_timesteps(3)
    out = scheduler.step(p.double().log()[None], 0, torch.full((1, 3), MASK), temperature=0.0)
    assert int(out.transfer_index.sum()) == 1
