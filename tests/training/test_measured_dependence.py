"""Kappa as it is measured, on oracles whose dependence is known."""

import functools
import math
from typing import Any

import pytest
import torch
from helpers.forced_runs import task_of
from helpers.small_distillations import pipeline_of

from lsd_sampler.denoisers import MarkovDenoiser, TableDenoiser, random_chain, sudoku4
from lsd_sampler.sampling.dependence import Dependence
from lsd_sampler.training.held_out import HeldOutBatch
from lsd_sampler.training.measured_dependence import (
    MOST_CALLS,
    PairRecorder,
    layouts_of,
    measured_dependence,
    states_of_pairs,
)


def forced(oracle: Any, num: int, batch_size: int = 64) -> list[HeldOutBatch]:
    x_NL = oracle.sample(num, torch.Generator().manual_seed(0))
    return [(range(i, min(i + batch_size, num)), [x_NL[i : i + batch_size]]) for i in range(0, num, batch_size)]


@functools.cache
def measured(name: str, num: int = 256) -> dict[str, Dependence]:
    oracle = ORACLES[name]()
    task = task_of(pipeline_of(oracle), order="adaptive", num_sequences=num)
    return measured_dependence(task, forced(oracle, num), {(oracle.length,)})


def symmetric_chain(length: int = 8) -> MarkovDenoiser:
    """Each token is that before it, but for one time in ten."""
    stay = 0.9
    return MarkovDenoiser(torch.tensor([[stay, 1 - stay], [1 - stay, stay]], dtype=torch.float64), length=length)


def independent(length: int = 8) -> MarkovDenoiser:
    law = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    return MarkovDenoiser(law.expand(3, 3), law, length)


ORACLES = {
    "chain": symmetric_chain,
    "independent": independent,
    "sudoku4": sudoku4,
    "random chain": lambda: random_chain(4, 8, seed=3),
}


@pytest.mark.parametrize("name", ORACLES)
def test_it_is_a_usable_dependence(name: str) -> None:
    found = measured(name)
    assert list(found) == ["matrix", "offset"]
    for layout, dependence in found.items():
        dependence.check(layout)  # in [0, 1], symmetric
        assert (
            float(dependence.kappa[:, 0].max() if layout == "offset" else dependence.kappa.diagonal(0, 1, 2).max())
            == 0
        )


def test_independent_positions_have_none() -> None:
    for dependence in measured("independent").values():
        assert float(dependence.kappa.max()) < 1e-9


def entropy(*p: float) -> float:
    return -sum(q * math.log(q) for q in p if q)


def test_of_a_chain_it_is_the_share_of_information() -> None:
    """Where nothing is known, all tokens of the symmetric chain have the entropy log 2, and so has every most; what
    one tells about another at distance d is `log 2` less the entropy of a binary channel, d times over. The first
    bucket also holds contexts of one known token, so the exact ratio is averaged over these. 1,024 sequences meet it
    within 0.02.
    """
    chain, L = symmetric_chain(), 8
    kappa = measured("chain", 1024)["offset"].kappa[0]
    for d in (1, 2, 3):
        taken, most = exact_sums(chain, d, L)
        assert float(kappa[d]) == pytest.approx(taken / most, abs=0.02)


def exact_sums(chain: MarkovDenoiser, d: int, L: int) -> tuple[float, float]:
    """Entropy taken away at distance d, and the most, summed over all orders of the first two tokens."""
    flip = [(1 - 0.8**n) / 2 for n in range(L + 1)]

    def told(i: int, j: int, given: int | None) -> tuple[float, float]:
        """Mutual information of two positions, and the least of their entropies, given a third position or none."""
        if given is None:
            joint = torch.tensor([[1 - flip[d], flip[d]], [flip[d], 1 - flip[d]]]) / 2
        else:
            canvas = torch.full((2, L), 2)
            canvas[:, given] = 0  # by symmetry, of either token
            p_i = chain(canvas[:1]).exp()[0, i]
            canvas[:, i] = torch.tensor([0, 1])
            joint = p_i[:, None] * chain(canvas).exp()[:, j]
        h_i, h_j = (entropy(*joint.sum(axis).tolist()) for axis in (1, 0))
        return h_i + h_j - entropy(*joint.flatten().tolist()), min(h_i, h_j)

    totals = [0.0, 0.0]
    for i in range(L):
        for j in range(L):
            if abs(i - j) == d:
                for given in [None, *(g for g in range(L) if g not in (i, j))]:
                    # as first: 1 in L; as second, after `given`: 1 in L (L - 1)
                    weight = 1 / L if given is None else 1 / (L * (L - 1))
                    for n, value in enumerate(told(i, j, given)):
                        totals[n] += weight * value
    return totals[0], totals[1]


def test_offsets_pool_the_matrix() -> None:
    """The sums of an offset are those of all pairs that far apart."""
    chain = random_chain(4, 6, seed=1)
    task = task_of(pipeline_of(chain), order="adaptive", num_sequences=16)
    recorder = PairRecorder.from_config(task.base.config, order="random")
    states = states_of_pairs(6)
    recorder.visit(states, 6, layouts_of({(6,)}))
    ((sequences, finals),) = forced(chain, 16)
    recorder.force(finals)
    task.runs.run(recorder, len(states), sequences)
    matrix, offset = recorder.sums["matrix"], recorder.sums["offset"]
    for name in ("taken", "most"):
        of_pairs, of_offsets = getattr(matrix, name), getattr(offset, name)
        assert float(of_pairs.abs().sum()) > 0
        for d in range(1, 6):
            pooled = of_pairs.diagonal(d, 1, 2).sum(1) + of_pairs.diagonal(-d, 1, 2).sum(1)
            torch.testing.assert_close(of_offsets[:, d], pooled)


def test_cells_of_one_row_column_or_box_depend_more_than_others() -> None:
    kappa = measured("sudoku4")["matrix"].kappa[0]
    row, column = torch.arange(16) // 4, torch.arange(16) % 4
    box = row // 2 * 2 + column // 2
    peers = sum((axis[:, None] == axis) for axis in (row, column, box)).bool()
    peers.fill_diagonal_(False)
    others = ~peers & ~torch.eye(16, dtype=torch.bool)
    assert float(kappa[peers].mean()) > 2 * float(kappa[others].mean()) > 0
    assert float(kappa[peers].min()) > float(kappa[others].mean())


def test_images_have_offsets_of_rows_and_columns() -> None:
    assert layouts_of({(2, 3)}) == {"offset_2d": (2, 3), "matrix": (6, 6)}
    assert layouts_of({(4,), (6,)}) == {"offset": (6,)}
    assert list(layouts_of({(1024,)})) == ["offset"]


@pytest.mark.parametrize("num", [1, 2, MOST_CALLS, MOST_CALLS + 1, 1000])
def test_the_network_is_called_at_few_states_most_of_them_in_pairs(num: int) -> None:
    states = states_of_pairs(num)
    assert states[0] == 0 and states == sorted(set(states)) and states[-1] < num and len(states) <= MOST_CALLS
    followed = [s for s in states if s + 1 in states or s + 1 == num]
    assert len(followed) >= len(states) // 2


def test_a_bucket_that_was_not_seen_has_the_numbers_of_the_nearest() -> None:
    """A canvas of two positions is never more than half known."""
    found = measured_dependence(*two_positions())["matrix"].kappa
    assert float(found[0, 0, 1]) > 0.1
    for bucket in found[1:]:
        assert torch.equal(bucket, found[0])


def two_positions() -> tuple[Any, list[HeldOutBatch], set[tuple[int, ...]]]:
    oracle = TableDenoiser(torch.tensor([[0, 0], [1, 1], [0, 1]]))
    return task_of(pipeline_of(oracle), order="adaptive", num_sequences=32), forced(oracle, 32), {(2,)}
