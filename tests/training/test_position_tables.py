"""Where the search for the choice of positions begins."""

from typing import Any

import pytest
import torch
from helpers.forced_runs import task_of
from helpers.small_distillations import pipeline_of

from lsd_sampler.denoisers import random_chain, sudoku4
from lsd_sampler.sampling.dependence import Dependence
from lsd_sampler.sampling.learned_numbers import StepErrorTable
from lsd_sampler.sampling.orders import ORDERS
from lsd_sampler.sampling.position_choice import num_within
from lsd_sampler.training.paths import source_paths
from lsd_sampler.training.position_candidates import Candidate
from lsd_sampler.training.position_tables import (
    SIMPLE,
    PositionTables,
    calls_of_tables,
    constant_limits,
    continued,
    shortest_path,
    step_error_table,
)
from lsd_sampler.training.ranked_costs import StateCosts
from lsd_sampler.training.recording import StepErrorRecorder
from lsd_sampler.training.step_errors import estimate_table


def counts_of(shares: torch.Tensor, L: int) -> list[int]:
    """Known tokens after each call that takes these shares of what is open."""
    known = 0
    for share in shares.tolist():
        known += int(num_within(share, torch.tensor(L - known)))
    return [known] if len(shares) == 1 else [*counts_of(shares[:-1], L), known]


# ---- path_kl's table and paths ----


@pytest.mark.parametrize("order", ["random", "halton"])
@pytest.mark.parametrize("given", [False, True])
def test_the_table_is_that_of_path_kl(order: str, given: bool) -> None:
    """On the same sums: a replay by path_kl's recorder, under the same noise, and its costs sorted by rank."""
    L, num = 6, 8
    chain = random_chain(3, L, seed=2)
    x_BL = chain.sample(num, torch.Generator().manual_seed(0))
    fewer = torch.arange(num)[:, None] % 3 > torch.arange(L)  # rows with up to two given tokens
    call: dict[str, Any] = {"input_ids": torch.where(fewer, x_BL, 3)} if given else {}
    task = task_of(pipeline_of(chain), call, order="entropy", num_sequences=num)
    states = torch.arange(L)
    recorder = Sorted.from_config(task.base.config, order=order)
    (paths,) = [[type("Path", (), {"final_BL": x_BL})()]]
    recorder.replay(states, paths, L)
    recorder.seen = []
    task.runs.run(recorder, L, range(num))
    expected = estimate_table(recorder.nats_GL, recorder.seen_GL, ORDERS[order].exchangeable)
    found = step_error_table(recorder.seen, states, L, order)
    torch.testing.assert_close(found.table, expected, rtol=0, atol=1e-5)  # kept in float32
    assert torch.equal(found.grid, states)


class Sorted(StepErrorRecorder):
    """Keeps the costs of each state by rank, too."""

    seen: list[StateCosts]

    def record(self, x: Any) -> Any:
        final_BL, masked_B = self.canvases[0].final_BL, x.masked_BL.sum(1)
        log_p_BL = x.logits_BLV.log_softmax(-1).gather(2, final_BL[..., None])[..., 0]
        index_BL = x.canvas.rank_BL.masked_fill(~x.masked_BL, 99).argsort(dim=1)
        nats_BL = (-log_p_BL * x.masked_BL).gather(1, index_BL)
        self.seen.append(StateCosts(nats_BL.float(), nats_BL.float(), masked_B, masked_B))
        return super().record(x)


@pytest.mark.parametrize("M", [1, 2, 3, 5, 8])
def test_shares_of_the_shortest_path_take_as_many_as_it_does(M: int) -> None:
    L = 8
    generator = torch.Generator().manual_seed(0)
    table = StepErrorTable(torch.rand(L, L, generator=generator).double().cumsum(1).flip(0).triu(), torch.arange(L))
    shares = shortest_path(table, M)[0]
    assert counts_of(shares, L) == table.solve(M)[0][1:]
    assert float(shares[-1]) == 1


def test_with_more_calls_than_states_the_first_ones_take_nothing() -> None:
    table = StepErrorTable(torch.ones(3, 3).triu().double(), torch.arange(3))
    assert counts_of(shortest_path(table, 5)[0], 3) == [0, 0, 1, 2, 3]


# ---- candidates ----


def tables_of(pipe: Any, layouts: dict[str, Dependence], **options: Any) -> PositionTables:
    task = task_of(pipe, **{"num_sequences": 8, **options})
    finals = [[path.final_BL for path in paths] for paths in source_paths(task)]
    return PositionTables(task, list(zip(task.batches(), finals, strict=True)), layouts)


def test_candidates_of_each_number_of_calls() -> None:
    """Simple ones first, among them path_kl's schedules; each has as many shares as calls."""
    kappa = torch.full((1, 16, 16), 0.2).double() * (1 - torch.eye(16).double())
    layouts = {"matrix": Dependence(kappa, "matrix"), "offset": Dependence(kappa[:, 0], "offset")}
    tables = tables_of(pipeline_of(sudoku4()), layouts, order="adaptive", nfe=(2, 3, 12))
    found, dependence = tables.candidates()
    assert list(found) == [2, 3, 12] and any(dependence is each for each in layouts.values())
    for M, candidates in found.items():
        simple = [c for c in candidates if c.is_simple]
        assert candidates[: len(simple)] == simple and {c.name for c in simple} == {*SIMPLE}
        assert {c.weights for c in simple} == {*SIMPLE.values()}
        assert all(len(c.shares) == M and c.shares[-1] == 1 for c in candidates)
        assert all(0 <= share for c in candidates for share in c.shares)
        assert all(max(c.shares) <= 1 for c in candidates if c.budget != "entropy_bounds")
        assert all(c.name not in SIMPLE for c in candidates if not c.is_simple)
        assert any(c.name == "constant" for c in candidates) == (M <= 8)
    calls = tables.task.runs.network_calls - 1 - 16  # plan and teacher
    assert 0 < calls <= calls_of_tables(16, "adaptive")


@pytest.mark.parametrize("order", ["entropy", "margin"])
def test_an_order_without_weights_has_shares_only(order: str) -> None:
    tables = tables_of(pipeline_of(random_chain(3, 6, seed=1)), {}, order=order)
    found, dependence = tables.candidates()
    assert dependence is None
    for M, candidates in found.items():
        assert candidates and all(c.weights is None and c.name == order and len(c.shares) == M for c in candidates)
        assert all(c.free_below == 0 and c.budget == "position_shares" for c in candidates)
    assert tables.task.runs.network_calls - 1 - 6 == calls_of_tables(6, order)


def test_constant_limits_are_those_of_entropy() -> None:
    """Shares of it, and nats; also nats of the surest positions first, as in entropy-bounded unmasking."""
    limits = constant_limits(4)
    assert {c.budget for c in limits} == {"entropy_shares", "entropy_bounds"}
    assert any(c.budget == "entropy_bounds" and c.weight("own") and not c.weight("gain") for c in limits)
    for c in limits:
        assert len(set(c.shares[:-1])) == 1 and c.shares[-1] == 1


def test_a_find_of_fewer_calls_is_continued() -> None:
    """Along the same curve, or after first calls that take less."""
    best = Candidate("found", (0.25, 0.5, 1.0), SIMPLE["random"])
    curve, slower = continued(best, 6)
    for each in (curve, slower):
        assert len(each.shares) == 6 and each.shares[-1] == 1 and each.weights == best.weights
    left = torch.cumprod(1 - torch.tensor(curve.shares).double(), 0)
    torch.testing.assert_close(left[[1, 3, 5]], torch.tensor([0.75, 0.375, 0.0]).double())
    assert slower.shares == (0.25 / 8, 0.25 / 4, 0.25 / 2, *best.shares)


def test_nats_of_fewer_calls_are_continued() -> None:
    """As many in all before the last call, which takes the rest; or less in the first calls."""
    best = Candidate("found", (2.0, 4.0, 1.0), SIMPLE["random"], budget="entropy_bounds")
    same, slower = continued(best, 5)
    assert same.shares == pytest.approx((1, 1, 2, 2, 1)) and slower.shares == (0.5, 1.0, *best.shares)
    assert continued(None, 6) == continued(best, 3) == continued(best, 2) == []
