"""LSDScheduler: what holds in every generation, for every solver, order, count and dtype."""

import math

import pytest
import torch
from helpers.sampler_runs import (
    EACH_COUNT,
    EACH_ORDER,
    EACH_SOLVER,
    MASK,
    REVEALING,
    fixed_model,
    generate,
    learned,
    seeded,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from lsd_sampler import LSDScheduler, LSDSchedulerOutput, MaskedDiffusionPipeline
from lsd_sampler.sampling.noise import NOISE_SCHEDULES
from lsd_sampler.sampling.orders import ORDERS
from lsd_sampler.sampling.schedules import GRIDS


DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
KINDS = st.fixed_dictionaries(
    {
        "solver": st.sampled_from(REVEALING),
        "order": st.sampled_from(ORDERS.names()),
        "count": st.sampled_from(["exact", "bernoulli"]),
        "prediction_type": st.sampled_from(["logits", "log_score"]),
        "noise_schedule": st.sampled_from(NOISE_SCHEDULES.names()),
        "schedule": st.sampled_from(GRIDS.names()),
    }
)


@settings(max_examples=150)
@given(
    kind=KINDS,
    steps=st.integers(1, 9),
    shape=st.sampled_from([(1,), (7,), (16,), (1, 1), (3, 4), (4, 4)]),
    batch=st.integers(1, 3),
    seed=st.integers(0, 1000),
    mask=st.integers(0, 6),
    dtype=st.sampled_from(DTYPES),
    temperature=st.sampled_from([1.0, 0.0, 0.5, 3.0, math.inf]),
    known=st.floats(0, 1),
)
def test_every_generation(kind, steps, shape, batch, seed, mask, dtype, temperature, known) -> None:
    """Times decrease in (0, 1], what is known stays, masks only go, none is left, and none is drawn."""
    vocab = 6
    columns = vocab if mask >= vocab else vocab + 1  # a mask column at any place, or none
    canvas = torch.randint(columns, (batch, *shape), generator=seeded(seed))
    canvas[torch.rand(canvas.shape, generator=seeded(seed)) >= known] = mask
    scheduler = LSDScheduler(mask_token_id=mask, vocab_size=vocab, **kind)
    model = fixed_model(canvas, columns, dtype, seed)
    if len(shape) == 2:
        channels_last = model(canvas)
        model = lambda sample: channels_last.movedim(-1, 1).contiguous()  # noqa: E731
    path = generate(scheduler, model, canvas, steps, generator=seeded(seed), temperature=temperature)
    times = scheduler.timesteps
    assert times.shape == (steps,) and times.dtype == torch.float32
    assert 0 < times.min() and times.max() <= 1 and (times.diff() < 0).all()
    for before, after in zip(path, path[1:], strict=False):
        assert after.shape == canvas.shape and after.dtype == torch.int64
        assert torch.equal(after[before != mask], before[before != mask])
    assert not (path[-1] == mask).any()
    assert 0 <= path[-1].min() and path[-1].max() < columns


@EACH_SOLVER
@EACH_ORDER
@EACH_COUNT
def test_rows_are_independent(solver: str, order: str, count: str) -> None:
    """With one generator per row, a row's tokens do not depend on the batch around it."""
    canvas = torch.full((4, 12), MASK)
    canvas[2, 3:7] = 1
    model = fixed_model(canvas, MASK)
    scheduler = LSDScheduler(mask_token_id=MASK, solver=solver, order=order, count=count)

    def run(rows: list[int]) -> torch.Tensor:
        chosen = model(canvas)[rows]
        return generate(scheduler, lambda _: chosen, canvas[rows], 4, generator=[seeded(10 + i) for i in rows])[-1]

    together = run([0, 1, 2, 3])
    assert torch.equal(together, torch.cat([run([i]) for i in range(4)]))
    assert torch.equal(together[[3, 1]], run([3, 1]))


@EACH_ORDER
def test_one_generator_reproduces(order: str) -> None:
    canvas = torch.full((3, 20), MASK)
    model, scheduler = fixed_model(canvas, MASK), LSDScheduler(mask_token_id=MASK, order=order)
    first, again, other = (generate(scheduler, model, canvas, 5, generator=seeded(s))[-1] for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(3)
    unseeded = generate(scheduler, model, canvas, 5)[-1]
    torch.manual_seed(3)
    assert torch.equal(unseeded, generate(scheduler, model, canvas, 5)[-1])


@EACH_SOLVER
@EACH_ORDER
@EACH_COUNT
@pytest.mark.parametrize("prediction_type", ["logits", "log_score"])
def test_coefficients_of_one_change_nothing(solver: str, order: str, count: str, prediction_type: str) -> None:
    kind = {"solver": solver, "order": order, "count": count, "prediction_type": prediction_type}
    canvas = torch.full((8, 16), MASK)
    model = fixed_model(canvas, MASK)
    plain, trained = LSDScheduler(mask_token_id=MASK, **kind), LSDScheduler(mask_token_id=MASK, **kind)
    trained.set_learned_sampler(learned(6, plain))
    assert trained.config.learned and not plain.config.learned
    paths = [generate(s, model, canvas, 6, generator=seeded()) for s in (plain, trained)]
    assert all(torch.equal(a, b) for a, b in zip(*paths, strict=True))


def test_solvers_agree_under_log_linear_noise() -> None:
    canvas = torch.full((8, 32), MASK)
    model = fixed_model(canvas, MASK)
    for count in ("exact", "bernoulli"):
        euler, tweedie = (LSDScheduler(mask_token_id=MASK, solver=s, count=count) for s in ("euler", "tweedie"))
        ends = [generate(s, model, canvas, 7, generator=seeded())[-1] for s in (euler, tweedie)]
        assert torch.equal(*ends)


@EACH_ORDER
@pytest.mark.parametrize("schedule", GRIDS.names())
def test_exact_counts(order: str, schedule: str) -> None:
    """`round(alpha n)` of the n positions that were masked are known after each step, whatever was known before."""
    canvas = torch.full((3, 40), MASK)
    canvas[1, 5:16] = 2
    canvas[2] = 3
    scheduler = LSDScheduler(mask_token_id=MASK, order=order, schedule=schedule)
    path = generate(scheduler, fixed_model(canvas, MASK), canvas, 9)
    masked_at_start = (canvas == MASK).sum(1)
    for k, t in enumerate([*scheduler.timesteps.double().tolist()[1:], 0.0], start=1):
        known = masked_at_start - (path[k] == MASK).sum(1)
        assert known.tolist() == [round(n * (1 - 0.999 * t)) for n in masked_at_start.tolist()]


@EACH_COUNT
@pytest.mark.parametrize("order", [o for o in ORDERS.names() if not ORDERS[o].looks_at_logits])
def test_numbers_of_steps_share_their_noise(order: str, count: str) -> None:
    """One generator gives the same sample at any number of steps, where the model ignores the canvas."""
    canvas = torch.full((16, 64), MASK)
    model = fixed_model(canvas, MASK)
    scheduler = LSDScheduler(mask_token_id=MASK, order=order, count=count)
    few, many, other = (
        generate(scheduler, model, canvas, M, generator=seeded(s))[-1] for M, s in ((8, 0), (64, 0), (64, 1))
    )
    assert torch.equal(few, many)
    assert (few == other).double().mean() < 0.6


def test_related_samples_of_a_peaked_chain() -> None:
    """On a chain where context matters, 8 and 64 steps agree far more than by chance."""
    pipe = MaskedDiffusionPipeline.from_pretrained("countdown:V=16,L=64")
    pipe.set_progress_bar_config(disable=True)

    def sample(M: int, seed: int) -> torch.Tensor:
        return pipe(num_samples=32, num_inference_steps=M, generator=seeded(seed)).sequences

    many = sample(64, 0)
    agreement, chance = ((many == sample(8, seed)).double().mean() for seed in (0, 1))
    assert agreement > 3 * chance


def test_two_generations_in_a_row() -> None:
    """No state outlives a generation, be it finished, broken off, or of another shape."""
    canvas = torch.full((2, 10), MASK)
    model, scheduler = fixed_model(canvas, MASK), LSDScheduler(mask_token_id=MASK)

    def fresh(seed: int) -> torch.Tensor:
        return generate(LSDScheduler(mask_token_id=MASK), model, canvas, 4, generator=seeded(seed))[-1]

    for seed in (1, 2):
        assert torch.equal(generate(scheduler, model, canvas, 4, generator=seeded(seed))[-1], fresh(seed))
    scheduler.set_timesteps(4)
    sample = canvas
    for t in scheduler.timesteps[:2]:
        sample = scheduler.step(model(sample), t, sample, generator=seeded(3)).prev_sample
    # begun again without `set_timesteps`
    sample = canvas
    for t in scheduler.timesteps:
        sample = scheduler.step(model(sample), t, sample, generator=seeded(4)).prev_sample
    assert torch.equal(sample, fresh(4))


@EACH_ORDER
@EACH_COUNT
def test_positions_masked_again_are_filled(order: str, count: str) -> None:
    """A callback may mask known positions again, even of the prompt; none is left masked."""
    canvas = torch.full((4, 12), MASK)
    canvas[:, :4] = 1
    model = fixed_model(canvas, MASK)
    for again_at in range(5):
        scheduler = LSDScheduler(mask_token_id=MASK, order=order, count=count)
        scheduler.set_timesteps(5)
        sample = canvas.clone()
        for k, t in enumerate(scheduler.timesteps):
            if k == again_at:
                sample[:, 2:9:2] = MASK
            sample = scheduler.step(model(sample), t, sample).prev_sample
        assert not (sample == MASK).any()


def test_both_kinds_of_return() -> None:
    canvas = torch.full((1, 4), MASK)
    scheduler = LSDScheduler(mask_token_id=MASK)
    outputs = []
    for return_dict in (True, False):
        scheduler.set_timesteps(1)
        outputs.append(
            scheduler.step(torch.zeros(1, 4, MASK), 1.0, canvas, generator=seeded(), return_dict=return_dict)
        )
    assert isinstance(outputs[0], LSDSchedulerOutput) and isinstance(outputs[1], tuple)
    assert torch.equal(outputs[0].prev_sample, outputs[1][0])
    assert outputs[0].pred_original_sample is None and outputs[1][1] is None


def test_zero_temperature_takes_the_likeliest() -> None:
    canvas = torch.full((3, 9), MASK)
    model = fixed_model(canvas, MASK)
    for order in ORDERS.names():
        sample = generate(LSDScheduler(mask_token_id=MASK, order=order), model, canvas, 3, temperature=0.0)[-1]
        assert torch.equal(sample, model(canvas).argmax(-1))


def test_images_equal_their_flattened_text() -> None:
    canvas = torch.full((2, 4, 6), MASK)
    model = fixed_model(canvas, MASK)
    scheduler = LSDScheduler(mask_token_id=MASK)
    image = generate(scheduler, lambda _: model(canvas).movedim(-1, 1), canvas, 5, generator=seeded())[-1]
    text = generate(scheduler, lambda _: model(canvas).flatten(1, 2), canvas.flatten(1), 5, generator=seeded())[-1]
    assert torch.equal(image.flatten(1), text)


def test_image_vocabulary_with_ids_between_codebook_and_mask() -> None:
    """aMUSEd's mask lies beyond its codebook, with unused ids between."""
    scheduler = LSDScheduler(mask_token_id=100)
    canvas = torch.full((1, 4, 4), 100)
    assert generate(scheduler, lambda _: torch.randn(1, 30, 4, 4), canvas, 3)[-1].max() < 30


def test_another_generator_means_another_generation() -> None:
    """A generation that was broken off leaves no noise behind for one that starts late, as image-to-image does."""
    logits, canvas = torch.randn(2, 12, MASK), torch.full((2, 12), MASK)
    scheduler, fresh = LSDScheduler(mask_token_id=MASK), LSDScheduler(mask_token_id=MASK)
    for each in (scheduler, fresh):
        each.set_timesteps(4)
    scheduler.step(logits, scheduler.timesteps[0], canvas, generator=torch.Generator().manual_seed(1))
    late = [
        each.step(logits, each.timesteps[1], canvas, generator=torch.Generator().manual_seed(2)).prev_sample
        for each in (scheduler, fresh)
    ]
    assert torch.equal(*late)


@pytest.mark.gpu
@EACH_ORDER
def test_cpu_generator_gives_the_same_tokens_on_gpu(order: str) -> None:
    canvas = torch.full((4, 32), MASK)
    model, scheduler = fixed_model(canvas, MASK, torch.float64), LSDScheduler(mask_token_id=MASK, order=order)
    on_cpu = generate(scheduler, model, canvas, 6, generator=seeded())[-1]
    on_gpu = generate(scheduler, lambda x: model(x).cuda(), canvas.cuda(), 6, generator=seeded())[-1]
    assert torch.equal(on_cpu, on_gpu.cpu())
