"""WINO: how many tokens are revealed, and which are masked again. (The official runs: tests/denoisers.)"""

import pytest
import torch
from helpers.sampler_runs import MASK

from lsd_sampler import LSDScheduler


def laws(top: list[float]) -> torch.Tensor:
    """Logits under which token 0 has these probabilities."""
    p = torch.tensor(top, dtype=torch.float64)
    return torch.stack([p, *[(1 - p) / (MASK - 1)] * (MASK - 1)], dim=-1).log()[None]


def run(calls: list[tuple[list[float], list[float]]], steps: int = 20, **options: float) -> list[list[int]]:
    """The known positions after each call, from the confidences on the canvas and without the token itself."""
    scheduler = LSDScheduler(mask_token_id=MASK, solver="wino", solver_options=options)
    scheduler.set_timesteps(steps)
    sample, known = torch.full((1, len(calls[0][0])), MASK), []
    for t, (top, support) in zip(scheduler.timesteps, calls, strict=False):
        given = {"shadow_output": laws(support), "temperature": 0.0}
        sample = scheduler.step(laws(top), t, sample, **given).prev_sample
        known.append((sample[0] != MASK).nonzero()[:, 0].tolist())
    return known


ALL = [0.99] * 8


def test_at_most_70_percent_and_at_least_one() -> None:
    assert len(run([(ALL, ALL)])[0]) == 5  # 70 % of 8
    assert len(run([([0.99] * 12, [0.99] * 12)])[0]) == 8
    assert len(run([([0.99] * 60, [0.99] * 60)])[0]) == 20
    assert run([([0.3, 0.5, 0.4, 0.5], ALL[:4])]) == [[1]]  # the leftmost of equals
    assert run([([0.99, 0.6, 0.7, 0.4], ALL[:4])]) == [[0, 2]]  # more than the threshold


def test_what_the_others_contradict_is_masked_again() -> None:
    doubted = [0.99, 0.2, *ALL[2:]]
    assert run([(ALL, ALL), (ALL, doubted)]) == [[0, 1, 2, 3, 4], [0, 2, 3, 4, 5, 6, 7]]
    assert run([(ALL, ALL), (ALL, doubted)], threshold_back=0.1)[1] == [*range(8)]


def test_fewer_than_the_call_before_revealed() -> None:
    """Three were revealed: two at most are masked again, those of the least support."""
    first = [0.99] * 3 + [0.4] * 5
    doubted = [0.3, 0.1, 0.2] + [0.99] * 5
    assert run([(first, ALL), (ALL, doubted)]) == [[0, 1, 2], [0, *range(3, 8)]]


def test_a_call_that_reveals_one_masks_none() -> None:
    assert run([([0.99] * 3 + [0.4] * 5, ALL), ([0.4] * 8, [0.1] * 8)]) == [[0, 1, 2], [0, 1, 2, 3]]


def test_the_last_call_masks_none() -> None:
    assert run([(ALL, ALL), (ALL, [0.1] * 8)], steps=2)[1] == [*range(8)]


def test_a_step_without_a_shadow_says_what_is_missing() -> None:
    scheduler = LSDScheduler(mask_token_id=MASK, solver="wino")
    scheduler.set_timesteps(4)
    with pytest.raises(ValueError, match="`shadow_output`.*MaskedDiffusionPipeline"):
        scheduler.step(torch.zeros(1, 4, MASK), 0, torch.full((1, 4), MASK))
