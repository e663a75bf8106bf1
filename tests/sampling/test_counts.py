"""How many tokens a step of LLaDA's or Dream's counts reveals, row by row; what such counts leave no say."""

from typing import Any

import pytest
import torch

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps


def counts_of(count: str, masked: int, steps: int, order: str = "random", **config: Any) -> list[int]:
    scheduler = LSDScheduler(mask_token_id=2, order=order, count=count, **config)
    scheduler.set_timesteps(steps)
    sample, counts = torch.full((3, masked), 2), []
    for t in scheduler.timesteps:
        out = scheduler.step(torch.zeros(3, masked, 2), t, sample)
        sample = out.prev_sample
        numbers = set(out.transfer_index.sum(1).tolist())
        assert len(numbers) == 1
        counts += numbers
    return counts


@pytest.mark.parametrize("order", ["random", "halton", "confidence"])
def test_llada_gives_the_remainder_to_the_first_steps(order: str) -> None:
    assert counts_of("llada", 18, 5, order) == [4, 4, 4, 3, 3]
    assert counts_of("llada", 3, 5, order) == [1, 1, 1, 0, 0]
    assert counts_of("llada", 16, 4, order) == [4, 4, 4, 4]


@pytest.mark.parametrize("order", ["random", "halton", "confidence"])
def test_dream_rounds_down_in_single_precision(order: str) -> None:
    """With as many steps as tokens the first reveals none, and what rounding left over goes in the last step."""
    expected, left, times = [], 16, torch.linspace(1, 1e-3, 17)
    for k in range(16):
        n = left if k == 15 else int(torch.tensor(float(left)) * (1 - times[k + 1] / times[k]))
        expected.append(n)
        left -= n
    assert expected[0] == 0 and sum(expected) == 16
    assert counts_of("dream", 16, 16, order, sampling_eps=1e-3) == expected


def test_rows_count_their_own_masks() -> None:
    for count, expected in (("llada", [[3, 2, 2], [1, 1, 1]]), ("dream", [[2, 2, 3], [0, 1, 2]])):
        scheduler = LSDScheduler(mask_token_id=2, count=count, sampling_eps=1e-3)
        scheduler.set_timesteps(3)
        sample = torch.full((2, 7), 2)
        sample[1, 3:] = 0
        revealed = []
        for t in scheduler.timesteps:
            out = scheduler.step(torch.zeros(2, 7, 2), t, sample)
            sample = out.prev_sample
            revealed.append(out.transfer_index.sum(1))
        assert torch.stack(revealed, dim=1).tolist() == expected


@pytest.mark.parametrize("count", ["llada", "dream"])
@pytest.mark.parametrize(
    ("config", "named"),
    [({"schedule": "cosine"}, "`schedule` 'cosine'"), ({"solver": "fast_dllm_factor"}, "`solver` 'fast_dllm_factor'"),
     ({"corruption": "uniform", "vocab_size": 3}, "`corruption` 'uniform'")],
)  # fmt: skip
def test_what_has_no_say_beside_a_published_count_is_refused(count: str, config: Any, named: str) -> None:
    with pytest.raises(ValueError, match=f"`count` '{count}' fixes .*{named}"):
        LSDScheduler(count=count, **config)


@pytest.mark.parametrize("count", ["llada", "dream"])
def test_nothing_is_learned_for_a_published_count(count: str) -> None:
    scheduler = LSDScheduler(mask_token_id=2, count=count)
    steps = LearnedSteps.plain(torch.linspace(1, 1e-4, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match=f"`count` '{count}' fixes .* nothing can be learned"):
        scheduler.set_learned_sampler(LearnedSampler({3: steps}))
