"""What calls cost by their states and ranks, against a plain simulation and against forced runs."""

import math

import pytest
import torch
from helpers.forced_runs import task_of
from helpers.small_distillations import pipeline_of

from lsd_sampler.denoisers import random_chain
from lsd_sampler.sampling.learned_numbers import LearnedSampler
from lsd_sampler.sampling.position_choice import BUDGETS
from lsd_sampler.training.forced_figure import ForcedFigure, whole_shares
from lsd_sampler.training.position_candidates import Candidate
from lsd_sampler.training.ranked_costs import RankedCosts, RankingRecorder, StateCosts


def states(seed: int, L: int = 9, rows: int = 4) -> list[StateCosts]:
    """States of a run that reveals up to three tokens a call, and free ones; rows differ in length."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(L - 3, L + 1, (rows,), generator=generator)
    known, found = torch.zeros(rows, dtype=torch.long), []
    while bool((known < start).any()):
        nats, entropy = torch.rand(2, rows, L, generator=generator).unbind(0)
        masked = start - known
        opened = (masked - torch.randint(0, 3, (rows,), generator=generator)).clamp(min=0)
        found.append(StateCosts(nats, entropy, opened, masked))
        take = torch.randint(1, 4, (rows,), generator=generator).minimum(opened)
        known = known + take + (masked - opened)
    return found


def simulated(
    seen: list[StateCosts], row: int, shares: list[float], budget: str, free_below: float
) -> tuple[float, list[int]]:
    """One row, one call after another."""
    start = int(seen[0].masked_R[row])
    known, nats, after, last, taken_here = 0, 0.0, [], None, 0
    for k, share in enumerate(shares):
        at = max(g for g, state in enumerate(seen) if start - int(state.masked_R[row]) <= known)
        state = seen[at]
        ranks = range(int(state.masked_R[row]))
        is_open = [r < int(state.open_R[row]) and float(state.entropy_RL[row, r]) >= free_below for r in ranks]
        open_ranks = [r for r in ranks if is_open[r]]
        if at == last:  # it goes on where it was
            free_ranks = []
        else:
            free_ranks = [r for r in ranks if not is_open[r]]
            taken_here = min(known - (start - int(state.masked_R[row])), len(open_ranks))
        left = open_ranks[taken_here:]
        if k == len(shares) - 1:
            taken = left
        elif budget == "position_shares":
            taken = left[: math.ceil(share * len(left) - 1e-9)]
        else:
            whole = sum(float(state.entropy_RL[row, r]) for r in left) if budget == "entropy_shares" else 1.0
            limit, mass, taken = share * whole, 0.0, []
            for r in left:
                if mass >= limit - 1e-9:
                    break
                taken.append(r)
                mass += float(state.entropy_RL[row, r])
        nats += sum(float(state.nats_RL[row, r]) for r in (*taken, *free_ranks))
        known, last, taken_here = min(start, known + len(taken) + len(free_ranks)), at, taken_here + len(taken)
        after.append(start if k == len(shares) - 1 else known)
    return nats, after


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("free_below", [0.0, 0.15])
def test_calls_follow_the_states(budget: str, free_below: float) -> None:
    rows = [[0.2, 0.3, 0.5, 1], [0, 0, 0.9, 1], [0.05, 0.05, 0.05, 1], [1, 0.5, 0, 1]]
    shares_CM = torch.tensor(rows, dtype=torch.float64)
    for seed in range(8):
        seen = states(seed)
        nats_CR, known_CRM = RankedCosts.of(seen, free_below).follow(shares_CM, budget)
        for c, shares in enumerate(shares_CM.tolist()):
            for row in range(4):
                nats, after = simulated(seen, row, shares, budget, free_below)
                assert float(nats_CR[c, row]) == pytest.approx(nats, abs=1e-6)
                assert known_CRM[c, row].tolist() == after


def test_what_is_free_is_paid_for_once() -> None:
    """Calls that take nothing stay at a state; its free position costs 5 nats whatever their number."""
    nats, entropy = torch.tensor([[1.0, 2.0, 5.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    seen = [StateCosts(nats, entropy, torch.tensor([2]), torch.tensor([3]))]
    costs = RankedCosts.of(seen, 0.0)
    for M in (1, 2, 5):
        nats_CR, known_CRM = costs.follow(torch.zeros(1, M).double(), BUDGETS[0])
        assert float(nats_CR) == pytest.approx(8) and known_CRM[0, 0].tolist() == [1.0] * (M - 1) + [3.0]


@pytest.mark.parametrize("weights", [(0, 0, 0, 1, 0), (0, 0, 0, 0, 1), (1, 0, 0, 0, 0.1)])
@pytest.mark.parametrize("kind", ["logits", "given"])
def test_one_token_a_call_costs_what_it_costs(weights: tuple[float, ...], kind: str) -> None:
    """The run is then the sampler's own: the same positions in the same states, row by row."""
    L, num = 6, 12
    chain = random_chain(3, L, seed=4)
    x_BL = chain.sample(num, torch.Generator().manual_seed(0))
    call = {} if kind == "logits" else {"input_ids": torch.cat([x_BL[:, :2], torch.full((num, L - 2), 3)], 1)}
    masked = L if kind == "logits" else L - 2
    task = task_of(pipeline_of(chain), call, order="adaptive", num_sequences=num)
    batches = [(range(num), [x_BL])]
    shares = tuple(1 / (masked - k) for k in range(masked))
    candidate = Candidate("", shares, tuple(map(float, weights)))
    figure = ForcedFigure(task, {"fit": batches, "check": []}, None)
    forced_S = figure(candidate, "fit").costs_S
    recorder = RankingRecorder.from_config(task.base.config)
    steps = candidate.steps(whole_shares(shares, masked), task.base.noise, 1e-4)
    recorder.set_learned_sampler(LearnedSampler({masked: steps}))
    recorder.visit(list(range(masked)), masked)
    recorder.force(batches[0][1])
    figure.runs.run(recorder, masked, range(num))
    (seen,) = recorder.seen
    nats_CR, _ = RankedCosts.of(seen, 0.0).follow(torch.tensor([shares], dtype=torch.float64), BUDGETS[0])
    torch.testing.assert_close(nats_CR[0], forced_S, rtol=0, atol=1e-5)  # kept in float32
