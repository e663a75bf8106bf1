"""The order that learned which positions, and how many: its law, what it looks at, and the choice itself.

Samples are compared with the exact law by Pearson's test of 20,000 draws with a fixed seed, at p < 1e-6.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.chosen_positions import (
    BUDGETS,
    LAYOUTS,
    adaptive,
    chosen_by_hand,
    kappa_between,
    make_choice,
    one_a_call,
    random_kappa,
    random_weights,
    seeded,
)
from helpers.enumerated_paths import all_sequences, orders_of_revealing
from helpers.goodness_of_fit import p_value
from helpers.small_distillations import Scored, pipeline_of
from helpers.tiny_oracle import FALSE_ALARM, NUM_SAMPLES
from helpers.tiny_pipelines import oracle_llada2

from lsd_sampler import LSDScheduler
from lsd_sampler.denoisers import random_chain
from lsd_sampler.sampling.canvas import StepInput
from lsd_sampler.sampling.pipeline_runs import PipelineRuns
from lsd_sampler.sampling.position_choice import PositionChoice
from lsd_sampler.training.held_out import held_out_nats


CHAIN = random_chain(2, 4, seed=1)
MASK, L = 2, 4
SEQUENCES, LAW = all_sequences(CHAIN)
SHAPES = {"matrix": (L,), "offset": (L,), "offset_2d": (2, 2)}
MEMBERS = list(itertools.product(LAYOUTS, BUDGETS, range(3)))


def run(scheduler: LSDScheduler, logits_of: Any, canvas: torch.Tensor, M: int, **options: Any) -> list[torch.Tensor]:
    scheduler.set_timesteps(M)
    path = [canvas]
    for t in scheduler.timesteps:
        logits = logits_of(path[-1].flatten(1))
        path.append(scheduler.step(logits, t, path[-1], **options).prev_sample)
    return path


def draws(scheduler: LSDScheduler, shape: tuple[int, ...], M: int) -> np.ndarray:
    """How often each sequence of the chain came out."""
    path = run(scheduler, CHAIN, torch.full((NUM_SAMPLES, *shape), MASK), M, generator=seeded(1))
    index = (path[-1].flatten(1) * 2 ** torch.arange(L - 1, -1, -1)).sum(1)
    return torch.bincount(index, minlength=len(SEQUENCES)).numpy()


def hard_logits(batch: int, length: int, columns: int = 5, seed: int = 0) -> torch.Tensor:
    """Of unequal entropies, no two alike."""
    generator = seeded(seed)
    logits = torch.randn(batch, length, columns, generator=generator, dtype=torch.float64)
    return logits * (0.2 + 3 * torch.rand(batch, length, 1, generator=generator, dtype=torch.float64))


# ---- the law ----


@pytest.mark.parametrize(("layout", "budget", "seed"), MEMBERS)
def test_one_token_a_call_draws_from_the_model(layout: str, budget: str, seed: int) -> None:
    """Whatever the weights and kappa are: the chain has no error, and no two tokens are drawn in one call."""
    choice = make_choice(one_a_call(L, budget), budget, weights=random_weights(seed))
    scheduler = adaptive([choice], random_kappa(layout, SHAPES[layout], seed), mask_token_id=MASK)
    canvas = torch.full((64, *SHAPES[layout]), MASK)
    path = run(scheduler, CHAIN, canvas, L, generator=seeded(0))
    assert all(bool(((x == MASK).flatten(1).sum(1) == L - k).all()) for k, x in enumerate(path))
    assert p_value(draws(scheduler, SHAPES[layout], L), LAW.numpy()) > FALSE_ALARM


@functools.cache
def entropies_of(canvas: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(torch.special.entr(CHAIN(torch.tensor([canvas]))[0].exp()).sum(-1).tolist())


def law_by_hand(choice: PositionChoice, kappas: Sequence[Any], orders: tuple[Any, Any]) -> torch.Tensor:
    """The probability of each sequence, given a random and a low-discrepancy order."""

    @functools.cache
    def chosen(canvas: tuple[int, ...], k: int) -> set[int]:
        masked = [token == MASK for token in canvas]
        if k == len(choice.shares) - 1:
            return {i for i in range(L) if masked[i]}
        return chosen_by_hand(entropies_of(canvas), masked, kappas[L - sum(masked)], choice, k, *orders)

    law = []
    for x in SEQUENCES.tolist():
        canvas, log_p = (MASK,) * L, 0.0
        for k in range(len(choice.shares)):
            now, log_p_LV = chosen(canvas, k), CHAIN(torch.tensor([canvas]))[0].log_softmax(-1)
            log_p += sum(float(log_p_LV[i, x[i]]) for i in now)
            canvas = tuple(x[i] if i in now else token for i, token in enumerate(canvas))
        law.append(math.exp(log_p))
    return torch.tensor(law, dtype=torch.float64)


@pytest.mark.parametrize(
    ("budget", "shares"), [(BUDGETS[0], [0.3, 0.6, 1]), (BUDGETS[1], [0.3, 1]), (BUDGETS[1], [0.1, 0.5, 1])]
)
def test_samples_and_forced_sequences_have_the_law_of_the_formulas(budget: str, shares: list[float]) -> None:
    """Both orders that may mix into the score are enumerated; every choice is made by hand."""
    weights = torch.tensor([0.4, 0.8, 0.3, 0.5, 0.6], dtype=torch.float64)
    choice, dependence = make_choice(shares, budget, weights=weights), random_kappa("offset", (L,), seed=3)
    scheduler, M = adaptive([choice], dependence, **CHAIN.scheduler_config()), len(shares)
    kappas = [kappa_between(dependence, (L,), known) for known in range(L + 1)]
    halton = orders_of_revealing("halton", L)
    laws = {
        orders: law_by_hand(choice, kappas, orders)
        for orders in itertools.product(orders_of_revealing("random", L), set(halton))
    }
    share = {orders: halton.count(orders[1]) / len(halton) / 24 for orders in laws}
    law = torch.stack([laws[orders] * share[orders] for orders in laws]).sum(0)
    assert float(law.sum()) == pytest.approx(1, abs=1e-12)
    assert p_value(draws(scheduler, (L,), M), law.numpy()) > FALSE_ALARM
    # the mean over orders of what forcing says; a sequence misses by 6 standard errors once in 500 million tests
    each, N = torch.stack(list(laws.values())), 1000
    sigma = ((each - law) ** 2 * torch.tensor(list(share.values()))[:, None]).sum(0).sqrt()
    runs = PipelineRuns(pipeline_of(CHAIN), 0, {})
    nats = held_out_nats(runs, scheduler, M, [(range(N * len(law)), [SEQUENCES.repeat(N, 1)])])
    mean = (-nats).exp().view(N, -1).mean(0)
    assert float(sigma.max()) > 1e-3  # so the orders matter
    assert bool(((mean - law).abs() <= 6 * sigma / N**0.5 + 1e-9).all())


@pytest.mark.parametrize(("layout", "budget", "seed"), MEMBERS)
def test_under_one_noise_the_probabilities_of_all_sequences_add_up_to_one(layout: str, budget: str, seed: int) -> None:
    choice = make_choice([0.3, 0.5, 1], budget, 0.2, random_weights(seed))
    layout = "offset" if layout == "offset_2d" else layout  # a chain is no image
    scheduler = adaptive([choice], random_kappa(layout, (L,), seed), **CHAIN.scheduler_config())
    for noise in range(5):
        runs = PipelineRuns(pipeline_of(CHAIN), 0, {})
        nats = held_out_nats(runs, scheduler, 3, [([noise] * len(SEQUENCES), [SEQUENCES])])
        assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-10)


# ---- the choice of the first call ----


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("free_below", [0.0, 0.4])
def test_a_step_reveals_what_the_formulas_say(layout: str, budget: str, free_below: float) -> None:
    """Rows with other given tokens, weights and kappa; the base orders are those of `random` and `halton`."""
    shape, columns = (3, 4) if layout == "offset_2d" else (12,), 5
    B, length = 16, 12
    given = torch.rand(B, length, generator=seeded(9)) < torch.linspace(0, 0.9, B)[:, None]
    canvas = torch.where(given, 0, columns).view(B, *shape)
    logits = hard_logits(B, length)
    orders = []
    for name in ("random", "halton"):
        plain = LSDScheduler(mask_token_id=columns, order=name)
        path = run(plain, lambda x: logits, canvas, length + 50, generator=seeded(2))
        when = torch.stack([(x == columns).flatten(1) for x in path]).sum(0)
        orders.append(when.argsort(dim=1, stable=True).tolist())
    entropies = torch.special.entr(logits.softmax(-1)).sum(-1).tolist()
    for seed in range(3):
        choice = make_choice([0.4, 1], budget, free_below, random_weights(seed))
        dependence = random_kappa(layout, shape, seed)
        scheduler = adaptive([choice], dependence, mask_token_id=columns)
        scheduler.set_timesteps(2)
        out = scheduler.step(logits, 0, canvas, generator=seeded(2))
        for row in range(B):
            kappa = kappa_between(dependence, shape, int(given[row].sum()))
            by_hand = chosen_by_hand(
                entropies[row], (~given[row]).tolist(), kappa, choice, 0, orders[0][row], orders[1][row]
            )
            assert set(out.transfer_index[row].flatten().nonzero()[:, 0].tolist()) == by_hand


MIXED = make_choice([0.3, 0.3, 0.4, 1], BUDGETS[1], 0.1, random_weights(7))


def mixed(**config: Any) -> LSDScheduler:
    return adaptive([MIXED], random_kappa("offset", (12,)), mask_token_id=5, **config)


def first_step(logits: torch.Tensor, scheduler: LSDScheduler, **options: Any) -> Any:
    scheduler.set_timesteps(4)
    return scheduler.step(logits, 0, torch.full(logits.shape[:2], 5), generator=seeded(0), **options)


def test_positions_do_not_depend_on_drawn_tokens() -> None:
    class OtherTokens(LSDScheduler):
        def advance(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
            canvas = replace(x.canvas, v_BL=torch.rand(x.canvas.v_BL.shape, dtype=torch.float64))
            return self.rule.advance(replace(x, canvas=canvas), self.plan)

    logits, other = hard_logits(50, 12), OtherTokens.from_config(mixed().config)
    other.set_learned_sampler(mixed().learned_sampler)
    outs = [first_step(logits, scheduler) for scheduler in (mixed(), other)]
    revealed = outs[0].transfer_index
    assert torch.equal(revealed, outs[1].transfer_index) and bool(revealed.any())
    assert bool((outs[0].prev_sample != outs[1].prev_sample)[revealed].any())


@pytest.mark.parametrize(
    "draws", [{"temperature": 0.0}, {"temperature": 0.3}, {"temperature": 4.0}, {"top_p": 0.1}, {"top_k": 1}], ids=str
)
@pytest.mark.parametrize("certainty", ["untempered", "tempered"])
def test_the_untempered_law_decides(draws: dict[str, Any], certainty: str) -> None:
    logits = hard_logits(20, 12)
    plain = first_step(logits, mixed())
    assert torch.equal(first_step(logits, mixed(certainty=certainty), **draws).transfer_index, plain.transfer_index)
    changed = {key: value for key, value in draws.items() if key == "temperature"}
    for scale in changed.values():  # so the test can tell
        if scale:
            assert not torch.equal(first_step(logits / scale, mixed()).transfer_index, plain.transfer_index)


def test_a_learned_log_score_coefficient_changes_the_draws_alone() -> None:
    logits, sharp = hard_logits(20, 12), mixed()
    steps = sharp.learned_sampler.steps[4]
    steps.log_score_coefficients[:] = 5.0
    outs = [first_step(logits, scheduler) for scheduler in (mixed(), sharp)]
    assert torch.equal(outs[0].transfer_index, outs[1].transfer_index)
    assert not torch.equal(outs[0].prev_sample, outs[1].prev_sample)


def test_a_score_is_read_as_the_law_that_it_stands_for() -> None:
    logits = hard_logits(20, 12)
    score = logits.log_softmax(-1) + torch.randn(20, 12, 1, generator=seeded(3), dtype=torch.float64)
    outs = [first_step(logits, mixed()), first_step(score, mixed(prediction_type="log_score"))]
    assert torch.equal(outs[0].prev_sample, outs[1].prev_sample)


def test_a_score_model_is_drawn_from_one_token_a_call() -> None:
    """Its scores differ from probabilities by a factor at each position."""
    chain = Scored(CHAIN, "log_score")
    choice = make_choice(one_a_call(L, BUDGETS[0]), weights=random_weights(1))
    scheduler = adaptive([choice], random_kappa("matrix", (L,)), **chain.scheduler_config())
    nats = held_out_nats(PipelineRuns(pipeline_of(chain), 0, {}), scheduler, L, [(range(16), [SEQUENCES])])
    torch.testing.assert_close(nats, -LAW.log(), rtol=0, atol=1e-10)


# ---- whole generations ----


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("free_below", [0.0, 10.0])
def test_nothing_given_changes_and_the_last_call_completes(layout: str, budget: str, free_below: float) -> None:
    """Also where all positions are free, and where nothing is masked. No token is drawn twice."""
    shape = (3, 4) if layout == "offset_2d" else (12,)
    canvas = torch.randint(6, (30, *shape), generator=seeded(4))
    canvas[0], canvas[1] = 5, 2
    scheduler = adaptive(
        [make_choice([0.3, 0, 0.5, 1], budget, free_below, random_weights(2))],
        random_kappa(layout, shape),
        mask_token_id=5,
    )
    logits = hard_logits(30, 12)
    path = run(scheduler, lambda x: logits, canvas, 4, generator=seeded(0))
    assert len(path) == 5 and not bool((path[-1] == 5).any())
    for before, after in itertools.pairwise(path):
        assert torch.equal(torch.where(before == 5, 5, after), torch.where(before == 5, 5, before))
    assert bool((path[1] == 5).any()) == (free_below == 0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("budget", BUDGETS)
def test_a_row_depends_on_its_own_generator_alone(layout: str, budget: str) -> None:
    shape = (3, 4) if layout == "offset_2d" else (12,)
    canvas, logits = torch.randint(4, 6, (6, *shape), generator=seeded(4)), hard_logits(6, 12).float()
    scheduler = adaptive(
        [make_choice([0.3, 0.5, 1], budget, 0.1, random_weights(5))], random_kappa(layout, shape), mask_token_id=5
    )
    generators = [seeded(10 + row) for row in range(6)]
    together = run(scheduler, lambda x: logits, canvas, 3, generator=generators)[-1]
    for row in range(6):
        alone = run(
            scheduler, lambda x, row=row: logits[row : row + 1], canvas[row : row + 1], 3, generator=seeded(10 + row)
        )
        assert torch.equal(alone[-1][0], together[row])


@pytest.mark.parametrize("order", ["random", "halton"])
@pytest.mark.parametrize("shape", [(12,), (3, 4)])
def test_the_weight_of_a_base_order_alone_is_that_order(order: str, shape: tuple[int, ...]) -> None:
    """Token for token, with the shares that its counts are; given tokens stay out of both."""
    logits, M = hard_logits(8, 12), 5
    canvas = torch.full((8, *shape), 5)
    canvas.flatten(1)[:, [2, 7]] = 1
    plain = run(LSDScheduler(mask_token_id=5, order=order), lambda x: logits, canvas, M, generator=seeded(0))
    masked = [int((x[0] == 5).sum()) for x in plain]
    shares = [(before - after) / before for before, after in itertools.pairwise(masked)]
    for scale in (1e-3, 2.0):
        scheduler = adaptive([make_choice(shares, **{order: scale})], mask_token_id=5)
        path = run(scheduler, lambda x: logits, canvas, M, generator=seeded(0))
        assert all(torch.equal(a, b) for a, b in zip(path, plain, strict=True))


@pytest.mark.parametrize(
    "config",
    [{}, {"count": "bernoulli"}, {"schedule": "cosine"}, {"prediction_type": "log_score", "count": "bernoulli"}],
    ids=str,
)
def test_without_learned_numbers_it_is_halton(config: dict[str, Any]) -> None:
    logits, canvas = hard_logits(8, 12), torch.full((8, 12), 5)
    paths = [
        run(LSDScheduler(mask_token_id=5, order=order, **config), lambda x: logits, canvas, 4, generator=seeded(0))
        for order in ("adaptive", "halton")
    ]
    assert all(torch.equal(a, b) for a, b in zip(*paths, strict=True))


BLOCKS = {"mask_token_id": 3, "gen_length": 6, "block_length": 3}


@pytest.mark.parametrize("free_below", [0.0, 10.0])
def test_a_block_takes_all_its_calls(free_below: float) -> None:
    """Where all positions are free too: one of them waits for the last call."""
    pipe: Any = oracle_llada2(random_chain(3, 6, seed=3))
    choice = make_choice([0.4, 0.6, 0.5, 1], free_below=free_below, weights=random_weights(1))
    pipe.scheduler = adaptive([choice], random_kappa("offset", (3,)), mask_token_id=3)
    options = {"num_inference_steps": 4, "temperature": 1.0, "generator": seeded(0)}
    out = pipe(input_ids=torch.zeros(7, 0, dtype=torch.long), **BLOCKS, **options).sequences
    assert out.shape == (7, 6) and not bool((out == 3).any())
    assert pipe.model.calls == 2 * 4


def test_block_by_block_one_token_a_call_is_the_chain_rule() -> None:
    chain = random_chain(3, 6, seed=3)
    sequences, law = all_sequences(chain)
    x_BL = sequences[::100]
    choice = make_choice([*one_a_call(3, BUDGETS[0])], weights=random_weights(1))
    scheduler = adaptive([choice], random_kappa("matrix", (3,)), mask_token_id=3)
    runs = PipelineRuns(oracle_llada2(chain), 0, {"input_ids": torch.zeros(1, 0, dtype=torch.long), **BLOCKS})
    nats = held_out_nats(runs, scheduler, 3, [(range(len(x_BL)), [x_BL[:, :3], x_BL[:, 3:]])])
    torch.testing.assert_close(nats, -law[::100].log(), rtol=0, atol=1e-10)


def test_a_canvas_of_another_length_is_refused() -> None:
    scheduler = adaptive([MIXED], random_kappa("matrix", (7,)), mask_token_id=5)
    with pytest.raises(ValueError, match="learned for canvases of 7 positions, this one has 12"):
        first_step(hard_logits(2, 12), scheduler)


@pytest.mark.parametrize("gamma", [0.05, 0.4, 1.5])
def test_nats_of_the_surest_positions_are_entropy_bounded_unmasking(gamma: float) -> None:
    """Each step of a whole run, as the solver `entropy_bounded` takes it."""
    L, M = 12, 12
    logits = hard_logits(16, L)
    bound = adaptive([make_choice([gamma] * (M - 1) + [1.0], "entropy_bounds", own=1)], mask_token_id=5)
    solver = LSDScheduler(solver="entropy_bounded", solver_options={"gamma": gamma}, mask_token_id=5)
    canvas = torch.full((16, L), 5)
    first, second = (run(scheduler, lambda x: logits, canvas, M, generator=seeded(0)) for scheduler in (bound, solver))
    for mine, theirs in zip(first, second, strict=True):
        assert torch.equal(mine == 5, theirs == 5)


def test_no_call_is_made_for_a_sequence_that_is_complete() -> None:
    """A bound of 1000 nats takes everything in the first of four calls."""
    pipe = pipeline_of(CHAIN)
    choice = make_choice([1000.0, 1000.0, 1000.0, 1.0], "entropy_bounds", own=1)
    pipe.scheduler = adaptive([choice], **pipe.denoiser.scheduler_config())
    out = pipe(num_samples=3, num_inference_steps=4, generator=seeded(0), output_type="ids")
    assert out.sequence_calls.tolist() == [1, 1, 1] and out.network_calls == 1
