"""The yardstick of held-out sequences, against enumeration and the chain rule of exact chains."""

from typing import Any

import pytest
import torch
from helpers.enumerated_paths import all_sequences, nats_by_jumps, nats_in_order
from helpers.small_distillations import Scored, pipeline_of
from helpers.tiny_pipelines import oracle_llada2

from lsd_sampler import LSDScheduler
from lsd_sampler.denoisers import random_chain
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
from lsd_sampler.sampling.orders import ORDERS
from lsd_sampler.sampling.pipeline_runs import PipelineRuns
from lsd_sampler.sampling.schedules import grid_from_counts
from lsd_sampler.sampling.solvers import SOLVERS
from lsd_sampler.training.held_out import (
    HeldOutBatch,
    HeldOutRecorder,
    first_of,
    held_out_nats,
    rest_of,
    with_other_noise,
)


CHAIN = random_chain(3, 3, seed=1)
SEQUENCES, LAW = all_sequences(CHAIN)
BLIND = [name for name in ORDERS.names() if not ORDERS[name].looks_at_logits]
WITH_A_LAW = [name for name in ORDERS.names() if not ORDERS[name].looks_at_tokens]
FALSE_ALARM_ERRORS = 5.0
"""A mean lies further from its expectation, in standard errors, once in 1.7 million tests."""


def sampler(chain: Any, steps: LearnedSteps | None = None, **options: Any) -> LSDScheduler:
    scheduler = LSDScheduler(**{**chain.scheduler_config(), **options})
    if steps is not None:
        scheduler.set_learned_sampler(LearnedSampler({len(steps.score_coefficients): steps}))
    return scheduler


def measure(
    chain: Any, scheduler: LSDScheduler, M: int, x_BL: torch.Tensor, seed: int = 0, **call: Any
) -> torch.Tensor:
    return held_out_nats(PipelineRuns(pipeline_of(chain), seed, call), scheduler, M, [(range(len(x_BL)), [x_BL])])


def close_on_average(nats_B: torch.Tensor, expected_B: torch.Tensor) -> None:
    """Of many sequences, each with an order of its own, on which the cost depends."""
    excess_B = nats_B - expected_B
    error = float(excess_B.std()) / len(excess_B) ** 0.5
    assert 1e-4 < error < 0.02
    assert abs(float(excess_B.mean())) < FALSE_ALARM_ERRORS * error


@pytest.mark.parametrize("order", WITH_A_LAW)
@pytest.mark.parametrize("kind", ["logits", "log_score"])
def test_one_token_at_a_time_it_is_the_chain_rule(order: str, kind: str) -> None:
    """For each sequence, whatever its order: `-log p(x)`."""
    chain = Scored(CHAIN, kind)
    nats = measure(chain, sampler(chain, order=order), 3, SEQUENCES)
    torch.testing.assert_close(nats, -LAW.log(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("order", WITH_A_LAW)
@pytest.mark.parametrize("M", [1, 2])
def test_it_is_a_law_of_sequences(order: str, M: int) -> None:
    """Under one noise the probabilities of all sequences add up to 1: positions are chosen before tokens are drawn."""
    for noise in range(20):
        runs = PipelineRuns(pipeline_of(CHAIN), 0, {})
        batch = ([noise] * len(SEQUENCES), [SEQUENCES])
        nats = held_out_nats(runs, sampler(CHAIN, order=order, schedule="cosine"), M, [batch])
        assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-10)


def test_all_at_once_it_is_the_marginals() -> None:
    steps = LearnedSteps.plain(torch.tensor([1.0, 1e-4], dtype=torch.float64))
    steps.log_score_coefficients[0] = 1.7
    log_p = (1.7 * CHAIN(torch.full((1, 3), 3))).log_softmax(-1)[0]
    expected = -log_p[torch.arange(3), SEQUENCES].sum(1)
    torch.testing.assert_close(measure(CHAIN, sampler(CHAIN, steps), 1, SEQUENCES), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("order", ["random", "halton"])
def test_mean_over_orders_is_the_enumerated_one(order: str) -> None:
    counts, betas = [0, 1, 3], [2.0, 0.7]
    steps = LearnedSteps.plain(grid_from_counts(counts, CHAIN.noise, 1e-4))
    steps.log_score_coefficients[:] = torch.tensor(betas)
    expected = nats_in_order(CHAIN, SEQUENCES, order, counts, betas)
    nats = measure(CHAIN, sampler(CHAIN, steps, order=order), 2, SEQUENCES.repeat(100, 1))
    close_on_average(nats, expected.repeat(100))


@pytest.mark.parametrize(("kind", "solver"), [("logits", "tweedie"), ("log_score", "tweedie"), ("log_score", "euler")])
def test_it_follows_bernoulli_reveals_with_coefficients(kind: str, solver: str) -> None:
    """The sampler's own reveals: of scores they depend on the tokens that were forced before."""
    chain = Scored(CHAIN, kind)
    times = torch.tensor([1.0, 0.6, 0.3, 1e-4], dtype=torch.float64)
    phis, betas = torch.tensor([0.4, 0.6, 1.0]).double(), torch.tensor([1.3, 0.8, 1.1]).double()
    steps = LearnedSteps(times, phis, betas)
    weights = phis * SOLVERS[solver].score_weight(chain.noise, times[:-1], times[1:])

    def jump(canvas_L: torch.Tensor, k: int) -> torch.Tensor:
        if kind == "logits":
            odds = chain.noise.alpha(times[k]) / chain.noise.masked(times[k])
            return (weights[k] * odds).clamp(max=1).expand(3)
        return (weights[k] * (betas[k] * chain(canvas_L[None])).exp().sum(-1)[0]).clamp(max=1)

    expected = torch.tensor([nats_by_jumps(chain, x, steps, jump) for x in SEQUENCES], dtype=torch.float64)
    scheduler = sampler(chain, steps, count="bernoulli", solver=solver)
    nats = measure(chain, scheduler, 3, SEQUENCES.repeat(100, 1))
    close_on_average(nats, expected.repeat(100))


def test_rows_with_unequal_masks_and_batches() -> None:
    """Given what each row knows, the chain rule again; and what a batch is does not matter."""
    chain = random_chain(3, 5, seed=2)
    sequences, law = all_sequences(chain)
    x_BL = sequences[torch.linspace(0, len(sequences) - 1, 6).long()]
    given_BL = torch.zeros(6, 5, dtype=torch.bool)
    given_BL[1::2, [0, 3]] = True
    known = [law[(sequences[:, given] == x[given]).all(1)].sum() for x, given in zip(x_BL, given_BL, strict=True)]
    of_x = [law[(sequences == x).all(1)].sum() for x in x_BL]
    call = {"input_ids": torch.where(given_BL, x_BL, chain.mask_token_id)}
    runs, scheduler = PipelineRuns(pipeline_of(chain), 0, call), sampler(chain, order="halton")
    nats = held_out_nats(runs, scheduler, 5, [(range(6), [x_BL])])
    torch.testing.assert_close(nats, torch.stack(known).log() - torch.stack(of_x).log(), rtol=0, atol=1e-10)
    parts = [(rows, [x_BL[rows.start : rows.stop]]) for rows in (range(1), range(1, 6))]
    for M in (2, 5):
        whole = held_out_nats(runs, scheduler, M, [(range(6), [x_BL])])
        torch.testing.assert_close(held_out_nats(runs, scheduler, M, parts), whole, rtol=0, atol=1e-12)


def test_block_by_block() -> None:
    """LLaDA2Pipeline has a canvas for each block; M calls for each, one token a call: the chain rule."""
    chain = random_chain(3, 6, seed=3)
    sequences, law = all_sequences(chain)
    x_BL = sequences[::100]
    pipe: Any = oracle_llada2(chain)
    call = {"input_ids": torch.zeros(1, 0, dtype=torch.long), "mask_token_id": 3, "gen_length": 6, "block_length": 3}
    runs, scheduler = PipelineRuns(pipe, 0, call), sampler(chain)
    nats = held_out_nats(runs, scheduler, 3, [(range(len(x_BL)), [x_BL[:, :3], x_BL[:, 3:]])])
    torch.testing.assert_close(nats, -law[::100].log(), rtol=0, atol=1e-10)
    assert runs.network_calls == pipe.model.calls == 6


@pytest.mark.parametrize("num", [0, 1, 3, 4, 7, 8, 99])
def test_the_first_and_the_rest_are_all(num: int) -> None:
    """In order, without empty batches, and without a batch that was not there."""
    x_BL = torch.arange(24).reshape(8, 3)
    batches: list[HeldOutBatch] = [(range(10, 13), [x_BL[:3]]), (range(13, 18), [x_BL[3:]])]
    first, rest = first_of(batches, num), rest_of(batches, num)
    assert sum(len(sequences) for sequences, _ in first) == min(num, 8)
    assert [i for sequences, _ in (*first, *rest) for i in sequences] == list(range(10, 18))
    assert torch.equal(torch.cat([final for _, (final,) in (*first, *rest)]), x_BL)
    assert all(len(sequences) == len(final) > 0 for sequences, (final,) in (*first, *rest))


def test_other_noise_is_other_noise() -> None:
    """Of the same seed always the same, and none of the run's own; network calls are counted apart."""
    runs = PipelineRuns(pipeline_of(CHAIN), 0, {})
    other = with_other_noise(runs)
    drawn = [[float(torch.rand(1, generator=g)) for g in each.generators(range(20))] for each in (runs, other)]
    assert drawn[1] == [float(torch.rand(1, generator=g)) for g in with_other_noise(runs).generators(range(20))]
    assert not set(drawn[0]) & set(drawn[1])
    other.network_calls += 1
    assert runs.network_calls == 0


class Blind(HeldOutRecorder):
    """Reveals everything that is left in the second call, whatever the order says."""

    def reveals(self, x: Any) -> torch.Tensor:
        return x.masked_BL if x.k else torch.zeros_like(x.masked_BL)


def test_what_is_revealed_can_be_replaced() -> None:
    recorder = Blind.from_config(sampler(CHAIN).config)
    recorder.set_learned_sampler(LearnedSampler({2: LearnedSteps.plain(torch.tensor([1.0, 0.5, 1e-4]).double())}))
    recorder.force([SEQUENCES])
    PipelineRuns(pipeline_of(CHAIN), 0, {}).run(recorder, 2, range(len(SEQUENCES)))
    torch.testing.assert_close(recorder.nats_B, measure(CHAIN, sampler(CHAIN), 1, SEQUENCES), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"order": "confidence"}, "`order` 'confidence'"),
        ({"solver": "remdm_cap"}, "`solver` 'remdm_cap'"),
        ({"draws": "float32_eps1e-6", "count": "bernoulli"}, "`draws`"),
        ({"corruption": "uniform", "mask_token_id": None, "vocab_size": 3}, "uniform noise"),
    ],
)
def test_what_cannot_be_forced_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        measure(CHAIN, sampler(CHAIN, **options), 2, SEQUENCES)


def test_sequences_of_another_call_are_refused() -> None:
    with pytest.raises(ValueError, match="canvases of shapes"):
        measure(CHAIN, sampler(CHAIN), 2, SEQUENCES[:, :2])
    for call in ({"prefix": [2]}, {"input_ids": [[2, 3, 3]]}):
        with pytest.raises(ValueError, match="do not fit the pipeline's canvas"):
            measure(CHAIN, sampler(CHAIN), 2, SEQUENCES, **call)
    with pytest.raises(ValueError, match="do not fit the pipeline's canvas"):
        measure(CHAIN, sampler(CHAIN), 2, SEQUENCES.masked_fill(SEQUENCES == 1, CHAIN.mask_token_id))
