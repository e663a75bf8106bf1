"""path_kl: the table against enumeration, its exact replay, and the schedules that come from it."""

import itertools
import math
from typing import Any

import pytest
import torch
from helpers.enumerated_paths import orders_of_revealing
from helpers.small_distillations import learn, pipeline_of, samples, seen_by

from lsd_sampler import DistillConfig, LSDScheduler, distill
from lsd_sampler.denoisers import MarkovDenoiser, countdown, random_chain
from lsd_sampler.evaluation import forbidden_share, reverse_kl_per_transition
from lsd_sampler.sampling.pipeline_runs import PipelineRuns


# ---- path_kl: the table ----


def enumerated_nats(chain: MarkovDenoiser, order: str) -> tuple[torch.Tensor, torch.Tensor]:
    """`-log p(x_i | the first s in the order)` of each (order, sequence), `(C, L states, L ranks)`, and their law."""
    L, V = chain.length, chain.vocab_size
    sequences = torch.tensor(list(itertools.product(range(V), repeat=L)))
    law = chain.initial[sequences[:, 0]] * chain.transition[sequences[:, :-1], sequences[:, 1:]].prod(1)
    permutations = orders_of_revealing(order, L)
    nats, weights = [], []
    for permutation in sorted(set(permutations)):
        by_state = []
        for s in range(L):
            canvas = sequences.clone()
            canvas[:, list(permutation[s:])] = chain.mask_token_id
            log_p = chain(canvas).gather(2, sequences[..., None])[..., 0]
            by_state.append(-log_p[:, list(permutation)].masked_fill(torch.arange(L) < s, 0))
        nats.append(torch.stack(by_state, dim=1))
        weights.append(law * permutations.count(permutation) / len(permutations))
    return torch.cat(nats), torch.cat(weights)


@pytest.mark.parametrize("order", ["halton", "random"])
def test_table_is_the_enumerated_expectation(order: str) -> None:
    """Each entry is a mean of `num` independent terms: it lies within 4.5 exact standard errors of its expectation."""
    chain, num = random_chain(3, 4, seed=1), 3000
    learned = learn(chain, order=order, nfe=(2,), num_sequences=num, batch_size=1500).learned_sampler.step_error
    assert learned is not None and learned.grid.tolist() == [0, 1, 2, 3]
    nats_CLL, weight_C = enumerated_nats(chain, order)
    if order == "random":  # all ranks of a state are pooled
        L = chain.length
        share_LL = torch.ones(L, L).triu() / torch.arange(L, 0, -1)[:, None]
        nats_CLL = (nats_CLL * share_LL).sum(2, keepdim=True).expand(-1, L, L).triu()
    mean_LL = torch.einsum("c,csr->sr", weight_C, nats_CLL)
    error_LL = (torch.einsum("c,csr->sr", weight_C, nats_CLL.square()) - mean_LL.square()).clamp(min=0).sqrt()
    error_LL /= math.sqrt(num)
    assert float(error_LL.max()) < 0.02  # so the test can tell
    assert float(weight_C.sum()) == pytest.approx(1)
    assert bool(((learned.table - mean_LL).abs() <= 4.5 * error_LL + 1e-12).all())


def test_table_falls_with_the_state_and_is_finite() -> None:
    for order in ("halton", "random"):
        table = learn(countdown(8, 24), order=order, nfe=(4,), num_sequences=8).learned_sampler.step_error.table
        valid = torch.ones_like(table).triu().bool()  # states 0, ..., L - 1: rank r is masked while s <= r
        pairs = valid[1:] & valid[:-1]
        assert bool((table.diff(dim=0)[pairs] <= 1e-12).all())
        assert bool((table >= 0).all()) and bool(torch.isfinite(table).all())
        assert bool((table[~valid] == 0).all())


@pytest.mark.parametrize("order", ["halton", "random"])
def test_table_does_not_depend_on_the_batch_size(order: str) -> None:
    tables = [
        learn(
            countdown(8, 24), order=order, nfe=(4,), num_sequences=32, batch_size=size
        ).learned_sampler.step_error.table
        for size in (8, 32)
    ]
    torch.testing.assert_close(*tables, atol=1e-12, rtol=0)


@pytest.mark.parametrize("method", ["path_kl", "lsd"])
def test_same_seed_same_numbers_other_seed_others(method: str) -> None:
    def numbers(seed: int) -> list[float]:
        options = {"method": method, "nfe": (3,), "num_sequences": 4, "teacher_steps": 12, "seed": seed}
        learned = learn(random_chain(4, 12), **options).learned_sampler
        if learned.step_error is not None:
            return learned.step_error.table.flatten().tolist()
        return learned.steps[3].log_score_coefficients.tolist()

    assert numbers(0) == numbers(0)
    assert numbers(0) != numbers(1)
    assert numbers(0) != numbers(2**20)


def test_every_sequence_of_every_seed_has_noise_of_its_own() -> None:
    pipe = pipeline_of(countdown(4, 8))
    first = [
        torch.rand(1, generator=generator, dtype=torch.float64).item()
        for seed in (0, 1, 2**33)
        for generator in PipelineRuns(pipe, seed, {}).generators(range(40))
    ]
    assert len(set(first)) == len(first)
    later = PipelineRuns(pipe, 1, {}).generators([7])[0]
    assert torch.rand(1, generator=later, dtype=torch.float64).item() == first[47]


# ---- path_kl: the schedules ----


@pytest.fixture(scope="module")
def trained() -> dict[str, tuple[LSDScheduler, list[dict[str, Any]]]]:
    """path_kl samplers for `countdown:V=16,L=64`, and what was logged."""
    out = {}
    for order in ("halton", "random"):
        records: list[dict[str, Any]] = []
        config = DistillConfig(method="path_kl", order=order, nfe=(4, 8, 16), num_sequences=64)
        out[order] = distill(pipeline_of(countdown(16, 64)), config, log=records.append), records
    return out


@pytest.mark.parametrize("order", ["halton", "random"])
@pytest.mark.parametrize("steps", [4, 8])
def test_beats_the_uniform_grid_on_the_exact_oracle(trained: Any, order: str, steps: int) -> None:
    chain, (scheduler, _) = countdown(16, 64), trained[order]
    uniform = LSDScheduler(**chain.scheduler_config(), order=order)
    ours, theirs = samples(chain, scheduler, steps), samples(chain, uniform, steps)
    kl, kl_uniform = (reverse_kl_per_transition(x, chain.transition) for x in (ours, theirs))
    assert kl < 0.6 * kl_uniform
    assert forbidden_share(ours, chain.transition) < forbidden_share(theirs, chain.transition)


@pytest.mark.parametrize("order", ["halton", "random"])
def test_predicted_path_kl_is_at_most_that_of_the_uniform_grid(trained: Any, order: str) -> None:
    scheduler, records = trained[order]
    table = scheduler.learned_sampler.step_error
    rows = [r for r in records if r["event"] == "schedule"]
    assert [r["nfe"] for r in rows] == [4, 8, 16]
    assert all(0 <= r["path_kl"] <= r["path_kl_uniform"] for r in rows)  # all 64 states: no estimate is involved
    costs = [table.solve(M)[1] for M in range(1, 65)]
    assert all(b <= a + 1e-9 for a, b in itertools.pairwise(costs))
    assert all(table.solve(M)[1] <= table.uniform_cost(M) + 1e-9 for M in range(1, 65))


@pytest.mark.parametrize("order", ["halton", "random"])
def test_the_sampler_reveals_what_its_schedule_says(trained: Any, order: str) -> None:
    scheduler, records = trained[order]
    for row in (r for r in records if r["event"] == "schedule"):
        chain = countdown(16, 64)
        canvases = seen_by(chain)
        samples(chain, scheduler, row["nfe"], num=3)
        known = [(canvas != 16).sum(1).tolist() for canvas in canvases]
        assert known == [[count] * 3 for count in [0, *row["known_after_step"][:-1]]]


def test_numbers_of_steps_that_were_not_trained_come_from_the_table(trained: Any, tmp_path: Any) -> None:
    scheduler = trained["halton"][0]
    assert scheduler.available_num_inference_steps is None
    scheduler.save_pretrained(tmp_path)
    chain, loaded = countdown(16, 64), LSDScheduler.from_pretrained(tmp_path)
    canvases = seen_by(chain)
    samples(chain, loaded, 11, num=2)
    counts = scheduler.learned_sampler.step_error.solve(11)[0]
    assert [int((canvas != 16).sum(1)[0]) for canvas in canvases] == counts[:-1]
    assert 11 not in loaded.learned_sampler.steps
    scheduler.set_timesteps(11)
    assert torch.equal(scheduler.timesteps, loaded.timesteps)
    with pytest.raises(ValueError, match="num_inference_steps"):
        loaded.set_timesteps(65)


@pytest.mark.parametrize("order", ["halton", "random"])
def test_rows_may_have_unequally_many_masks(order: str) -> None:
    """A row with fewer masks counts by the share of them that is known; all its tokens are replayed."""
    mask, known = 4, torch.tensor([[0, 4, 4, 4, 4, 4, 4, 4], [1, 0, 3, 2, 4, 4, 4, 4]])
    canvases, templates = seen_by(chain := countdown(4, 8)), known.tolist()
    chain.time_conditioned = True  # so that each step is one call for all sequences
    options = {"order": order, "nfe": (2,), "num_sequences": 4, "teacher_steps": 7}
    learned = learn(chain, {"input_ids": templates}, **options).learned_sampler
    assert learned.step_error is not None and learned.step_error.table.shape == (7, 7)
    assert torch.isfinite(learned.step_error.table).all()
    replay, teacher = canvases[-7:], canvases[1:8]
    assert [int((row == mask).sum()) for row in replay[0]] == [7, 4, 7, 4]
    # of 7 and 4 masked positions, ceil(4 s / 7) are known in the second when s are in the first
    for s, canvas in enumerate(replay):
        assert (canvas == mask).sum(1).tolist() == [7 - s, 4 - math.ceil(4 * s / 7)] * 2
        assert bool(((canvas == known.repeat(2, 1)) | (known.repeat(2, 1) == mask)).all())
    assert torch.equal(replay[0], teacher[0])
