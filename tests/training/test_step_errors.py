"""The step-error table from sums: means, made non-increasing in the state."""

import torch

from lsd_sampler.training.step_errors import estimate_table


def sums(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_means_by_state_and_rank() -> None:
    table = estimate_table(sums([6, 4], [0, 3]), sums([2, 1], [0, 2]), exchangeable=False)
    torch.testing.assert_close(table, sums([3, 4], [0, 1.5]))


def test_ranks_of_an_exchangeable_order_are_pooled() -> None:
    table = estimate_table(sums([6, 4], [0, 3]), sums([2, 1], [0, 2]), exchangeable=True)
    torch.testing.assert_close(table, sums([10 / 3, 10 / 3], [0, 1.5]))


def test_a_later_state_costs_no_more() -> None:
    """Where the means rise, both have the mean of all terms."""
    table = estimate_table(sums([2], [9]), sums([1], [3]), exchangeable=False)
    torch.testing.assert_close(table, sums([11 / 4], [11 / 4]))


def test_what_was_never_seen_is_filled_in() -> None:
    """A state of a rank: from the state before. A rank: from all ranks."""
    masked = torch.ones(2, 2, dtype=torch.bool)
    table = estimate_table(sums([4, 0], [0, 0]), sums([2, 0], [0, 0]), exchangeable=False, masked_GL=masked)
    torch.testing.assert_close(table, sums([2, 2], [2, 2]))
