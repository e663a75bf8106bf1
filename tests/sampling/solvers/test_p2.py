"""P2: how many positions are known after each call, which are masked again, and the noise of its scores."""

import math

import numpy as np
import pytest
import torch
from helpers.sampler_runs import seeded

from lsd_sampler import LSDScheduler


MASK = 3


def law(top: list[float]) -> torch.Tensor:
    p = torch.tensor(top, dtype=torch.float64)
    return torch.stack([p, *[(1 - p) / 2] * 2], dim=-1).log()[None]


def run(calls: list[list[float]], steps: int, **options: object) -> list[list[int]]:
    """The known positions after each call, at temperature 0."""
    scheduler = LSDScheduler(mask_token_id=MASK, solver="p2", solver_options=options)
    scheduler.set_timesteps(steps)
    sample, known = torch.full((1, len(calls[0])), MASK), []
    for t, top in zip(scheduler.timesteps, calls, strict=False):
        sample = scheduler.step(law(top), t, sample, temperature=0.0).prev_sample
        known.append((sample[0] != MASK).nonzero()[:, 0].tolist())
    return known


def test_known_positions_may_be_masked_again() -> None:
    first, second = [0.9, 0.8, 0.7, 0.6], [0.5, 0.95, 0.6, 0.9]
    assert run([first, second], 4) == [[0], [1, 3]]
    assert run([first, second], 4, eta=0.0) == [[0], [0, 1]]  # never, and of the others the surest
    assert run([first, [0.75, 0.95, 0.6, 0.7]], 4, eta=3.0) == [[0], [1, 3]]  # log 0.75 times 3 is below log 0.7
    assert run([first, [0.75, 0.95, 0.6, 0.7]], 4, eta=1.0) == [[0], [0, 1]]


def test_of_equal_scores_the_leftmost_are_masked() -> None:
    assert run([[0.5] * 4] * 2, 4) == [[3], [2, 3]]


@pytest.mark.parametrize("steps", [1, 3, 4, 7, 12])
def test_exactly_so_many_are_known(steps: int) -> None:
    scheduler = LSDScheduler(mask_token_id=MASK, solver="p2")
    scheduler.set_timesteps(steps)
    sample = torch.full((2, 10), MASK)
    sample[1, :3] = 0
    generator = seeded()
    for k, t in enumerate(scheduler.timesteps, start=1):
        sample = scheduler.step(torch.randn(2, 10, MASK), t, sample, generator=generator).prev_sample
        for row, free in enumerate((10, 7)):
            assert int((sample[row] == MASK).sum()) == math.floor(free * (steps - k) / steps)
    assert (sample[1, :3] == 0).all()


def test_known_tokens_keep_their_token() -> None:
    """A fresh draw scores a known position; it does not replace its token."""
    scheduler = LSDScheduler(mask_token_id=MASK, solver="p2", solver_options={"eta": 0.0})
    scheduler.set_timesteps(4)
    sample, generator = torch.full((50, 8), MASK), seeded()
    for t in scheduler.timesteps:
        before = sample
        sample = scheduler.step(torch.zeros(50, 8, MASK), t, sample, generator=generator).prev_sample
        assert torch.equal(sample[before != MASK], before[before != MASK])


def test_the_noise_of_a_score_is_that_of_its_draw() -> None:
    """First of two calls, one of two positions is revealed: which one, and its token, as often as by Gumbel noise in
    numpy. 20,000 sequences; 6 standard deviations, which a right one passes in fewer than one of 10^7 runs.
    """
    p = np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]])
    noised = np.log(p) + np.random.default_rng(0).gumbel(size=(200_000, 2, 3))
    noised -= np.log(np.exp(noised).sum(-1, keepdims=True))
    winner, token = noised.max(-1).argmax(-1), noised.argmax(-1)
    expected = [((winner == i) & (token[:, i] == v)).mean() for i in range(2) for v in range(3)]
    scheduler = LSDScheduler(mask_token_id=MASK, solver="p2")
    scheduler.set_timesteps(2)
    logits = torch.from_numpy(p).log().expand(20_000, 2, 3)
    sample = scheduler.step(logits, 0, torch.full((20_000, 2), MASK), generator=seeded(1)).prev_sample
    found = [
        float(((sample[:, i] == v) & (sample[:, 1 - i] == MASK)).float().mean()) for i in range(2) for v in range(3)
    ]
    assert sum(found) == pytest.approx(1)
    for ours, theirs in zip(found, expected, strict=True):
        assert abs(ours - theirs) < 6 * math.sqrt(theirs / 20_000 + theirs / 200_000)
