"""What forced sequences cost a candidate."""

import itertools

import pytest
import torch
from helpers.enumerated_paths import all_sequences
from helpers.forced_runs import task_of
from helpers.small_distillations import pipeline_of

from lsd_sampler import LSDScheduler
from lsd_sampler.denoisers import random_chain, sudoku4
from lsd_sampler.sampling.dependence import Dependence
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
from lsd_sampler.sampling.position_choice import BUDGETS
from lsd_sampler.sampling.schedules import grid_from_counts
from lsd_sampler.training.forced_figure import ForcedFigure, whole_shares
from lsd_sampler.training.held_out import held_out_nats, with_other_noise
from lsd_sampler.training.position_candidates import Candidate
from lsd_sampler.training.position_tables import SIMPLE


L, NUM = 8, 12
CHAIN = random_chain(4, L, seed=3)
X = CHAIN.sample(NUM, torch.Generator().manual_seed(0))
BATCHES = [(range(5), [X[:5]]), (range(5, NUM), [X[5:]])]


def figure(order: str = "adaptive", dependence: Dependence | None = None) -> ForcedFigure:
    task = task_of(pipeline_of(CHAIN), order=order, num_sequences=NUM)
    return ForcedFigure(task, {"fit": BATCHES, "check": BATCHES[1:]}, dependence)


def halves(counts: list[int]) -> tuple[float, ...]:
    """Shares that take these numbers of tokens, whatever is left."""
    left, shares = sum(counts), []
    for number in counts[:-1]:
        shares.append((number - 0.5) / left if number else 0.0)
        left -= number
    return (*shares, 1.0)


@pytest.mark.parametrize("order", SIMPLE)
@pytest.mark.parametrize("counts", [[8], [3, 5], [1, 2, 5], [1] * 8])
def test_a_simple_candidate_costs_what_path_kls_sampler_does(order: str, counts: list[int]) -> None:
    """With the same numbers of tokens, under the same noise, to 1e-9 for each sequence."""
    found = figure()
    candidate = Candidate("", halves(counts), SIMPLE[order])
    measured = found(candidate, "fit")
    scheduler = LSDScheduler(**CHAIN.scheduler_config(), order=order)
    known = [0, *itertools.accumulate(counts)]
    plain = LearnedSteps.plain(grid_from_counts(known, CHAIN.noise, 1e-4))
    scheduler.set_learned_sampler(LearnedSampler({len(counts): plain}))
    nats = held_out_nats(with_other_noise(found.task.runs), scheduler, len(counts), BATCHES)
    torch.testing.assert_close(measured.costs_S, nats, rtol=0, atol=1e-9)
    torch.testing.assert_close(measured.known_M, torch.tensor(known[1:]).double() / L)
    torch.testing.assert_close(measured.open_M, L - torch.tensor(known[:-1]).double())


@pytest.mark.parametrize(
    "candidate",
    [
        Candidate("", (0.3, 0.5, 1.0), (0.3, 1.0, 0.3, 0.01, 0.0)),
        Candidate("", (0.3, 0.5, 1.0), (0.0, 1.0, 1.0, 0.0, 0.1), 0.3, BUDGETS[1]),
        Candidate("", (0.3, 0.5, 1.0), (1.0, 0.0, 0.0, 0.0, 0.0), 0.0, BUDGETS[0], 1.4),
    ],
)
def test_what_is_measured_is_the_sampler_that_is_saved(candidate: Candidate) -> None:
    """The scheduler with these numbers, forced along the same sequences under the same noise."""
    kappa = 0.3 * (1 - torch.eye(L, dtype=torch.float64))[None]
    dependence = Dependence(kappa, "matrix")
    found = figure(dependence=dependence)
    measured = found(candidate, "fit")
    steps = candidate.steps(measured.known_M, CHAIN.noise, 1e-4)
    scheduler = LSDScheduler(**CHAIN.scheduler_config(), order="adaptive")
    scheduler.set_learned_sampler(LearnedSampler({3: steps}, dependence=dependence))
    nats = held_out_nats(with_other_noise(found.task.runs), scheduler, 3, BATCHES)
    torch.testing.assert_close(measured.costs_S, nats, rtol=0, atol=1e-9)


@pytest.mark.parametrize("order", ["entropy", "margin"])
def test_one_token_a_call_is_the_chain_rule(order: str) -> None:
    measured = figure(order)(Candidate(order, halves([1] * L)), "fit")
    torch.testing.assert_close(measured.costs_S, -CHAIN.log_prob(X), rtol=0, atol=1e-9)


def test_parts_and_numbers_of_sequences() -> None:
    found = figure()
    assert (found.num_fit, found.num_check) == (12, 7)
    candidate = Candidate("", halves([3, 5]), SIMPLE["halton"])
    whole = found(candidate, "fit").costs_S
    for num in (1, 5, 6, 12, 99):
        assert torch.equal(found(candidate, "fit", num).costs_S, whole[:num])
    assert torch.equal(found(candidate, "check").costs_S, whole[5:])
    assert found.task.runs.network_calls == 1 + 2 * (2 + 1 + 1 + 2 + 2 + 2 + 1)


def test_known_after_shares_of_what_is_left() -> None:
    assert (whole_shares((0.25, 0.5, 0.0, 1.0), 16) * 16).tolist() == [4, 10, 10, 16]
    assert (whole_shares((0.01, 0.01, 1.0), 10) * 10).round().tolist() == [1, 2, 10]  # rounded up


def test_the_law_that_is_forced_is_a_law() -> None:
    """Under one noise the probabilities of all sequences add up to 1, whatever is free, and whatever the budget."""
    chain = random_chain(3, 3, seed=1)
    sequences, _ = all_sequences(chain)
    task = task_of(pipeline_of(chain), order="adaptive", num_sequences=4)
    kappa = Dependence(0.4 * (1 - torch.eye(3, dtype=torch.float64))[None], "matrix")
    for budget, free in itertools.product(BUDGETS, (0.0, 0.9)):
        one_noise = [([7] * len(sequences), [sequences])]
        measured = ForcedFigure(task, {"fit": one_noise, "check": []}, kappa)
        candidate = Candidate("", (0.4, 1.0), (0.1, 1.0, 0.5, 0.1, 0.0), free, budget)
        assert float((-measured(candidate, "fit").costs_S).exp().sum()) == pytest.approx(1, abs=1e-10)


def test_grids_that_are_certain_are_free() -> None:
    """With three clues in a box the fourth cell costs nothing and takes no share."""
    oracle = sudoku4()
    task = task_of(pipeline_of(oracle), order="adaptive", num_sequences=4)
    x = oracle.sequences[:4]
    measured = ForcedFigure(task, {"fit": [(range(4), [x])], "check": []}, None)
    plain = Candidate("", halves([1] * 16), (1.0, 0, 0, 0, 0.1))
    free = measured(Candidate("", plain.shares, plain.weights, 0.01), "fit")
    assert float(free.open_M[-4:].max()) == 0 < float(measured(plain, "fit").open_M[-4:].min())
    torch.testing.assert_close(free.costs_S, torch.full((4,), 288.0).double().log(), rtol=0, atol=1e-6)
