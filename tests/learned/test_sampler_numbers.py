"""The numbers of a sampler: learned ones, those of a table, or those of the plain solver; others are refused."""

import numpy as np
import pytest
import torch

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps, StepErrorTable


STEPS = LearnedSteps.plain(torch.tensor([1.0, 0.75, 0.125], dtype=torch.float64))
TABLE = StepErrorTable(torch.tensor([[0.0, 1, 2, 3], [0, 0, 1, 2], [0, 0, 0, 1]]).double(), torch.tensor([0, 1, 3]))


def scheduler(learned: LearnedSampler) -> LSDScheduler:
    scheduler = LSDScheduler(mask_token_id=4)
    scheduler.set_learned_sampler(learned)
    return scheduler


def test_learned_numbers_are_given_as_they_are_and_no_others() -> None:
    known = scheduler(LearnedSampler({2: STEPS}))
    assert known.available_num_inference_steps == [2] and known.steps_for(np.int64(2)) is STEPS  # pyright: ignore
    assert known.can_do(2) and not known.can_do(3)
    with pytest.raises(ValueError, match=r"one of \[2\].*got 3.*`lsd-train --nfe`"):
        known.steps_for(3)


def test_a_table_gives_the_times_of_its_cheapest_schedule() -> None:
    """With one token a step known after another, t = 1 - known / length, but for the end at `sampling_eps`."""
    known = scheduler(LearnedSampler({}, TABLE))
    assert known.available_num_inference_steps is None
    assert [M for M in range(-1, 6) if known.can_do(M)] == [1, 2, 3]
    counts, _ = TABLE.solve(2)
    times = known.steps_for(2).timesteps
    torch.testing.assert_close(times[:2], 1 - torch.tensor(counts[:2]).double() / 4, atol=2e-3, rtol=0)
    assert times[0] == 1 and 0 < times[-1] < 0.01 and bool((known.steps_for(2).log_score_coefficients == 1).all())


def test_nothing_learned_is_the_plain_solver() -> None:
    plain = LSDScheduler(mask_token_id=4)
    assert plain.available_num_inference_steps is None and plain.can_do(1000)
    steps = plain.steps_for(5)
    assert len(steps.timesteps) == 6 and bool((steps.score_coefficients == 1).all())
    known = scheduler(LearnedSampler({2: STEPS}))
    known.set_learned_sampler(LearnedSampler())
    assert known.available_num_inference_steps is None and torch.equal(known.steps_for(5).timesteps, steps.timesteps)


@pytest.mark.parametrize("steps", [0, -1, True, 2.0, "2", None])
def test_a_number_of_steps_is_a_positive_integer(steps: int) -> None:
    with pytest.raises(ValueError, match="`num_inference_steps` must be a positive integer"):
        LSDScheduler(mask_token_id=4).steps_for(steps)


def test_what_cannot_be_used_is_not_installed() -> None:
    known = scheduler(LearnedSampler({2: STEPS}))
    with pytest.raises(ValueError, match="nfe_3"):
        known.set_learned_sampler(LearnedSampler({3: STEPS}))
    assert known.available_num_inference_steps == [2]
