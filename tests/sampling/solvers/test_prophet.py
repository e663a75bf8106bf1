"""Prophet: LLaDA's counts, and an exit as soon as the lead is large enough for how far it is."""

import pytest
import torch

from lsd_sampler import LSDScheduler


MASK = 3


def known(leads: list[list[float]], **options: object) -> list[int]:
    """Numbers of known tokens after each call, whose leads (in nats) are given."""
    scheduler = LSDScheduler(mask_token_id=MASK, solver="prophet", solver_options=options)
    scheduler.set_timesteps(len(leads))
    sample, numbers = torch.full((1, len(leads[0])), MASK), []
    for t, lead in zip(scheduler.timesteps, leads, strict=True):
        logits = torch.zeros(1, len(lead), MASK, dtype=torch.float64)
        logits[0, :, 0], logits[0, :, 1] = 0.0, -torch.tensor(lead, dtype=torch.float64)
        logits[0, :, 2] = -50
        sample = scheduler.step(logits, t, sample, temperature=0.0).prev_sample
        numbers.append(int((sample != MASK).sum()))
    return numbers


@pytest.mark.parametrize(
    ("lead", "expected"),
    [
        (7.6, [9] * 9),
        (5.1, [1, 2, 3, *[9] * 6]),
        (2.6, [1, 2, 3, 4, 5, 6, 7, 9, 9]),  # 7 of 9 is past 0.67
        (2.4, [*range(1, 10)]),
    ],
)
def test_thirds(lead: float, expected: list[int]) -> None:
    assert known([[lead] * 9] * 9) == expected


def test_mean_and_least() -> None:
    leads = [[20.0, 0.1, 0.1, 20.0]] * 4
    assert known(leads) == [4, 4, 4, 4]
    assert known(leads, lead="least") == [1, 2, 3, 4]


def test_counts_without_an_exit() -> None:
    """The remainder goes to the first calls."""
    assert known([[0.5] * 7] * 3) == [3, 5, 7]


def test_each_sequence_exits_by_itself() -> None:
    scheduler = LSDScheduler(mask_token_id=MASK, solver="prophet")
    scheduler.set_timesteps(4)
    logits = torch.zeros(2, 4, MASK, dtype=torch.float64)
    logits[1, :, 0] = 9.0
    out = scheduler.step(logits, 0, torch.full((2, 4), MASK), temperature=0.0)
    assert out.transfer_index.sum(1).tolist() == [1, 4]
