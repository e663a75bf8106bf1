"""LSDScheduler: what holds for every solver, order, count and dtype, and what it says to bad input."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AmusedScheduler, DiffusionPipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from lsd_sampler import LSDScheduler, LSDSchedulerOutput, MaskedDiffusionPipeline, load_denoiser
from lsd_sampler.checkpoint import TENSORS_NAME, LearnedSampler, LearnedSteps
from lsd_sampler.noise import NOISE_SCHEDULES
from lsd_sampler.orders import ORDERS
from lsd_sampler.schedules import GRIDS, StepErrorTable, grid_from_counts
from lsd_sampler.solvers import SOLVERS, OwnStep


MASK = 5
REVEALING = [name for name in SOLVERS.names() if not isinstance(SOLVERS[name], OwnStep)]
EACH_SOLVER = pytest.mark.parametrize("solver", REVEALING)
EACH_ORDER = pytest.mark.parametrize("order", ORDERS.names())
EACH_COUNT = pytest.mark.parametrize("count", ["exact", "bernoulli"])
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


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fixed_model(canvas: torch.Tensor, columns: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Callable:
    """A network whose output does not depend on the canvas: logits for each row, the same in every batch."""
    rows = [torch.randn(*canvas.shape[1:], columns, generator=seeded(seed + i)) for i in range(len(canvas))]
    logits = torch.stack(rows).to(dtype)
    return lambda sample: logits


def generate(
    scheduler: LSDScheduler, model: Callable, canvas: torch.Tensor, num_steps: int, **kwargs: Any
) -> list[torch.Tensor]:
    """The canvas before, between and after the steps."""
    scheduler.set_timesteps(num_steps)
    path = [canvas]
    for t in scheduler.timesteps:
        path.append(scheduler.step(model(path[-1]), t, path[-1], **kwargs).prev_sample)
    return path


def learned(M: int, scheduler: LSDScheduler) -> LearnedSampler:
    return LearnedSampler({M: LearnedSteps.plain(scheduler.steps_for(M).timesteps)})


def uneven(M: int = 3) -> LearnedSampler:
    steps = (torch.linspace(1, 0.1, M + 1) ** 2, torch.linspace(0.5, 1.5, M), torch.linspace(2, 0.7, M))
    return LearnedSampler({M: LearnedSteps(*(x.double() for x in steps))})


def step_error(num_states: int = 8, length: int = 16) -> StepErrorTable:
    table = torch.rand(num_states, length, generator=seeded(), dtype=torch.float64).sort(0, descending=True).values
    return StepErrorTable(table, torch.arange(num_states) * (length // num_states))


# ---- every generation ----


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


# ---- orders ----


@pytest.mark.parametrize("shape", [(1,), (2,), (13,), (100,), (128,), (3, 5), (16, 16), (1, 9)])
@EACH_ORDER
def test_order_visits_each_position_once(order: str, shape: tuple[int, ...]) -> None:
    B, L = 5, math.prod(shape)
    keys = ORDERS[order].keys(torch.rand(B, L, dtype=torch.float64), torch.rand(B, 2, dtype=torch.float64), shape)
    assert keys.shape == (B, L)
    assert all(len(set(row)) == L for row in keys.tolist())


@pytest.mark.parametrize("length", [8, 64, 256])
def test_halton_order_keeps_its_distance(length: int) -> None:
    """The first L / 2^k positions are at least 2^k - 1 apart, around the ring too."""
    shift = torch.rand(50, 2, dtype=torch.float64)
    keys = ORDERS["halton"].keys(torch.zeros(50, length, dtype=torch.float64), shift, (length,))
    for k in range(length.bit_length()):
        first = keys.argsort(1)[:, : length >> k].sort(1).values
        gaps = torch.cat([first, first[:, :1] + length], dim=1).diff()
        assert gaps.min() >= 2**k - 1


def test_halton_order_fills_images_evenly() -> None:
    """The first 16 of 64 positions lie one in each 2 x 2 cell of an 8 x 8 canvas, the first 4 one in each quarter."""
    shift = torch.cartesian_prod(*[torch.tensor([0.0, 0.25, 0.5, 0.75], dtype=torch.float64)] * 2)
    order = ORDERS["halton"].keys(torch.zeros(16, 64, dtype=torch.float64), shift, (8, 8)).argsort(1)
    y, x = order // 8, order % 8
    assert ((y // 2 * 4 + x // 2)[:, :16].sort(1).values == torch.arange(16)).all()
    quarters = (y // 4 * 2 + x // 4)[shift[:, 0] % 0.5 + shift[:, 1] % 0.5 == 0]
    assert (quarters[:, :4].sort(1).values == torch.arange(4)).all()


def test_halton_order_leaves_known_positions_out() -> None:
    """A prompt changes neither the relative order of the rest nor itself."""
    canvas = torch.full((1, 32), MASK)
    scheduler = LSDScheduler(mask_token_id=MASK, order="halton")

    def revealed(canvas: torch.Tensor) -> list[int]:
        path = generate(scheduler, fixed_model(canvas, MASK), canvas, 64, generator=seeded())
        steps = torch.stack([(x == MASK).sum(0) for x in path]).sum(0)
        return [i for i in steps.argsort(stable=True).tolist() if canvas[0, i] == MASK]

    whole = revealed(canvas)
    canvas[0, 10:20] = 2
    assert revealed(canvas) == [i for i in whole if not 10 <= i < 20]


# ---- times ----


@EACH_SOLVER
def test_learned_numbers_of_steps(solver: str) -> None:
    scheduler = LSDScheduler(mask_token_id=MASK, solver=solver)
    assert scheduler.available_num_inference_steps is None
    one, two = uneven(8), uneven(3)
    scheduler.set_learned_sampler(LearnedSampler({**one.steps, **two.steps}))
    assert scheduler.available_num_inference_steps == [3, 8]
    scheduler.set_timesteps(8)
    torch.testing.assert_close(scheduler.timesteps, one.steps[8].timesteps[:-1].float())
    with pytest.raises(ValueError, match=r"`num_inference_steps` must be one of \[3, 8\].* got 12"):
        scheduler.set_timesteps(12)
    scheduler.set_learned_sampler(LearnedSampler(one.steps, step_error()))
    assert scheduler.available_num_inference_steps is None


def test_step_error_table_gives_any_number_of_steps() -> None:
    scheduler = LSDScheduler(mask_token_id=MASK, order="halton")
    scheduler.set_learned_sampler(LearnedSampler(step_error=step_error()))
    canvas = torch.full((2, 16), MASK)
    for M in range(1, 9):
        counts, _ = step_error().solve(M)
        path = generate(scheduler, fixed_model(canvas, MASK), canvas, M)
        assert [int(16 - (x == MASK).sum(1)[0]) for x in path] == counts
        assert torch.equal(scheduler.timesteps, scheduler.steps_for(M).timesteps[:-1].float())
    with pytest.raises(ValueError, match=r"`num_inference_steps` must be in \[1, 8\]"):
        scheduler.set_timesteps(9)


@settings(max_examples=60)
@given(data=st.data(), noise=st.sampled_from(NOISE_SCHEDULES.names()), eps=st.sampled_from([1e-4, 1e-5, 0.02]))
def test_grid_from_counts(data, noise: str, eps: float) -> None:
    """The times are usable for any counts, and give those counts back unless noise leaves too few tokens masked."""
    length = data.draw(st.sampled_from([4, 100, 700, 20_000]))
    inner = data.draw(st.sets(st.integers(1, length - 1), max_size=12))
    counts = [0, *sorted(inner), length]
    scheduler = LSDScheduler(mask_token_id=MASK, noise_schedule=noise)
    grid = grid_from_counts(counts, scheduler.noise, eps)
    LearnedSteps.plain(grid).check("grid")
    if noise == "log_linear" and length <= 700:
        known = (scheduler.noise.alpha(grid[1:-1]) * length).round()
        assert known.tolist() == counts[1:-1]


def test_time_may_be_given_in_any_form() -> None:
    scheduler, canvas = LSDScheduler(mask_token_id=MASK), torch.full((2, 8), MASK)
    scheduler.set_timesteps(4, device="cpu")
    for t in (scheduler.timesteps[1], float(scheduler.timesteps[1]), scheduler.timesteps[1].double(), 0.750025):
        sample = scheduler.step(torch.zeros(2, 8, MASK), t, canvas, generator=seeded()).prev_sample
        assert (sample == MASK).sum() in (8, 10)


# ---- the forward process ----


@pytest.mark.parametrize("noise", NOISE_SCHEDULES.names())
def test_forward_process(noise: str) -> None:
    """Each token is masked with probability `1 - alpha(t)`, or kept. The shares stay within 6 standard deviations."""
    scheduler = LSDScheduler(mask_token_id=MASK, noise_schedule=noise)
    tokens = torch.randint(MASK, (3, 40_000))
    for times in (0.3, torch.tensor(0.9), torch.tensor([0.1, 0.5, 1.0])):
        noisy = scheduler.add_noise(tokens, times, generator=seeded())
        masked = noisy == MASK
        assert torch.equal(noisy[~masked], tokens[~masked])
        expected = (1 - scheduler.noise.alpha(times)).expand(3)
        deviation = (expected * (1 - expected) / 40_000).sqrt() + 1e-9
        assert ((masked.double().mean(1) - expected).abs() <= 6 * deviation).all()
    generators = [seeded(i) for i in range(3)]
    rows = scheduler.add_noise(tokens, 0.5, generator=generators)
    assert torch.equal(rows[2:], scheduler.add_noise(tokens[2:], 0.5, generator=[seeded(2)]))
    assert scheduler.add_noise(tokens.view(3, 200, 200), 0.5).shape == (3, 200, 200)


# ---- files ----


@pytest.mark.parametrize("subfolder", [None, "scheduler"])
def test_save_and_load(tmp_path: Path, subfolder: str | None) -> None:
    canvas = torch.full((2, 16), MASK)
    model = fixed_model(canvas, MASK)
    for numbers in (None, uneven(), LearnedSampler(uneven().steps, step_error())):
        scheduler = LSDScheduler(mask_token_id=MASK, order="halton", solver="euler", vocab_size=MASK, base_model="a/b")
        if numbers:
            scheduler.set_learned_sampler(numbers)
        scheduler.save_pretrained(tmp_path / (subfolder or ""))
        assert (tmp_path / (subfolder or "") / TENSORS_NAME).exists() == bool(numbers)
        loaded = LSDScheduler.from_pretrained(tmp_path, subfolder=subfolder)
        options = [{k: v for k, v in s.config.items() if k[0] != "_"} for s in (scheduler, loaded)]
        assert options[0] == options[1]
        assert loaded.config.learned == bool(numbers)
        paths = [generate(s, model, canvas, 3, generator=seeded()) for s in (scheduler, loaded)]
        assert all(torch.equal(a, b) for a, b in zip(*paths, strict=True))


def test_saving_a_plain_sampler_over_a_learned_one(tmp_path: Path) -> None:
    scheduler = LSDScheduler(mask_token_id=MASK)
    scheduler.set_learned_sampler(uneven())
    scheduler.save_pretrained(tmp_path)
    LSDScheduler(mask_token_id=MASK).save_pretrained(tmp_path)
    assert not (tmp_path / TENSORS_NAME).exists()
    assert not LSDScheduler.from_pretrained(tmp_path).learned_sampler


def test_options_may_be_overridden_on_load(tmp_path: Path) -> None:
    LSDScheduler(mask_token_id=MASK).save_pretrained(tmp_path)
    kwargs = {"count": "bernoulli", "colour": "red"}
    scheduler, unused = LSDScheduler.from_pretrained(tmp_path, return_unused_kwargs=True, **kwargs)
    assert (scheduler.config.count, unused["colour"]) == ("bernoulli", "red")
    assert "count" not in unused


def test_from_config_gives_the_plain_sampler() -> None:
    """Tensors do not travel in a config."""
    scheduler = LSDScheduler(mask_token_id=MASK, order="halton", solver="euler")
    scheduler.set_learned_sampler(uneven())
    plain = LSDScheduler.from_config(scheduler.config)
    assert (plain.config.order, plain.config.solver, plain.config.learned) == ("halton", "euler", False)
    assert not plain.learned_sampler
    plain.set_timesteps(12)
    foreign = LSDScheduler.from_config(AmusedScheduler(mask_token_id=77).config)
    assert foreign.config.mask_token_id == 77
    assert foreign.config.solver == LSDScheduler().config.solver


def test_saved_pipeline_reloads_in_another_process(tmp_path: Path) -> None:
    """diffusers finds our classes after a bare `import lsd_sampler`, tensors included."""
    pipe = MaskedDiffusionPipeline(load_denoiser("markov:V=5,L=8"), LSDScheduler(mask_token_id=MASK, vocab_size=MASK))
    pipe.scheduler.set_learned_sampler(uneven())
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(tmp_path)
    code = (
        "import sys, torch, lsd_sampler\n"
        "from diffusers import DiffusionPipeline\n"
        "pipe = DiffusionPipeline.from_pretrained(sys.argv[1])\n"
        "pipe.set_progress_bar_config(disable=True)\n"
        "assert pipe.scheduler.available_num_inference_steps == [3]\n"
        "out = pipe(num_samples=4, num_inference_steps=3, generator=torch.Generator().manual_seed(0))\n"
        "print(out.sequences.tolist())\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    expected = pipe(num_samples=4, num_inference_steps=3, generator=seeded()).sequences
    assert json.loads(run.stdout.splitlines()[-1]) == expected.tolist()
    assert isinstance(DiffusionPipeline.from_pretrained(tmp_path).scheduler, LSDScheduler)


# ---- bad input ----


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"solver": "tweedy"}, "`solver` must be one of .*'tweedy'.*Did you mean 'tweedie'"),
        ({"order": "haltom"}, "`order` must be one of .*'haltom'.*Did you mean 'halton'"),
        ({"schedule": "cosin"}, "`schedule` must be one of .*'cosin'.*Did you mean 'cosine'"),
        ({"count": "exakt"}, "`count` must be one of .*'exact'.*got 'exakt'"),
        ({"prediction_type": "logit"}, "`prediction_type` must be one of .*'logits'.*got 'logit'"),
        ({"noise_schedule": "loglinear"}, "`noise_schedule` must be one of .*'log_linear'.*got 'loglinear'"),
        ({"solver": None}, "`solver`"),
        ({"order": ["random"]}, "`order`"),
        ({"mask_token_id": -1}, "`mask_token_id`"),
        ({"mask_token_id": 1.5}, "`mask_token_id`"),
        ({"mask_token_id": True}, "`mask_token_id`"),
        ({"vocab_size": 0}, "`vocab_size`"),
        ({"noise_eps": 0.0}, "`noise_eps`"),
        ({"noise_eps": math.nan}, "`noise_eps`"),
        ({"noise_schedule": "geometric", "sigma_min": 2.0, "sigma_max": 1.0}, "`sigma_min`"),
        ({"sampling_eps": 0.0}, "`sampling_eps`"),
        ({"sampling_eps": 1.0}, "`sampling_eps`"),
        ({"confidence_temperature": -0.1}, "`confidence_temperature`"),
        ({"format_version": 99}, "`format_version` 99 is newer"),
        ({"learned": "yes"}, "`learned`"),
    ],
)
def test_bad_options(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LSDScheduler(**kwargs)


@pytest.mark.parametrize("steps", [0, -1, True, 2.0, "4", None])
@pytest.mark.parametrize("trained", [False, True])
def test_bad_numbers_of_steps(steps: Any, trained: bool) -> None:
    scheduler = LSDScheduler(mask_token_id=MASK)
    if trained:
        scheduler.set_learned_sampler(LearnedSampler(uneven(2).steps, step_error()))
    with pytest.raises(ValueError, match="`num_inference_steps` must be a positive integer"):
        scheduler.set_timesteps(steps)


def test_too_many_steps_for_the_precision_of_times() -> None:
    scheduler = LSDScheduler(mask_token_id=MASK, schedule="cosine")
    with pytest.raises(ValueError, match="`num_inference_steps` 20000 is too many"):
        scheduler.set_timesteps(20_000)


LOGITS, CANVAS = torch.zeros(2, 8, MASK), torch.full((2, 8), MASK)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"model_output": LOGITS[:1]}, "`model_output` and `sample` must have shapes"),
        ({"model_output": LOGITS[:, :7]}, "`model_output` and `sample` must have shapes"),
        ({"model_output": LOGITS[0]}, "`model_output` and `sample` must have shapes"),
        ({"sample": CANVAS[0]}, "`model_output` and `sample` must have shapes"),
        ({"model_output": LOGITS.view(2, 2, 4, MASK), "sample": CANVAS.view(2, 2, 4)}, "must have shapes"),
        ({"model_output": LOGITS.long()}, "`model_output` must be floating point"),
        ({"sample": CANVAS.int()}, "`sample` must hold int64"),
        ({"sample": CANVAS.float()}, "`sample` must hold int64"),
        ({"model_output": torch.zeros(2, 8, MASK + 2)}, "vocabulary mismatch"),
        ({"model_output": torch.zeros(2, 8, MASK - 1)}, "vocabulary mismatch"),
        ({"sample": torch.tensor([[MASK + 3] + [MASK] * 7] * 2)}, "`sample` holds token ids outside"),
        ({"sample": torch.tensor([[-1] + [MASK] * 7] * 2)}, "`sample` holds token ids outside"),
        ({"model_output": LOGITS * math.nan}, "`model_output` is unusable.*NaN"),
        ({"model_output": LOGITS + math.inf}, "`model_output` is unusable.*inf"),
        ({"model_output": LOGITS - math.inf}, "`model_output` is unusable.*all -inf"),
        ({"timestep": 0.7}, "`timestep` must be one of `timesteps`, got 0.7"),
        ({"timestep": math.nan}, "`timestep`"),
        ({"timestep": None}, "`timestep`"),
        ({"timestep": torch.tensor([1.0, 1.0])}, "`timestep`"),
        ({"temperature": -1.0}, "`temperature` must be >= 0"),
        ({"temperature": math.nan}, "`temperature` must be >= 0"),
        ({"generator": [seeded()]}, "`generator` has 1 entries, but the batch has 2 rows"),
        ({"generator": [seeded()] * 3}, "`generator` has 3 entries, but the batch has 2 rows"),
    ],
)
@EACH_ORDER
def test_bad_steps(order: str, kwargs: dict, message: str) -> None:
    scheduler = LSDScheduler(mask_token_id=MASK, vocab_size=MASK, order=order)
    scheduler.set_timesteps(2)
    with pytest.raises(ValueError, match=message):
        scheduler.step(**{"model_output": LOGITS, "timestep": 1.0, "sample": CANVAS, **kwargs})


@EACH_COUNT
@pytest.mark.parametrize("prediction_type", ["logits", "log_score"])
def test_one_bad_row_is_found_when_it_is_read(count: str, prediction_type: str) -> None:
    scheduler = LSDScheduler(mask_token_id=MASK, count=count, prediction_type=prediction_type)
    for bad, what in ((math.nan, "NaN"), (-math.inf, "all -inf")):
        logits = LOGITS.clone()
        logits[1, 3] = bad
        with pytest.raises(ValueError, match=f"`model_output` is unusable.*{what}"):
            generate(scheduler, lambda _, x=logits: x, CANVAS, 4)


def test_missing_pieces() -> None:
    with pytest.raises(ValueError, match="`mask_token_id` is not set"):
        scheduler = LSDScheduler()
        scheduler.set_timesteps(2)
        scheduler.step(LOGITS, 1.0, CANVAS)
    with pytest.raises(ValueError, match="`set_timesteps"):
        LSDScheduler(mask_token_id=MASK).step(LOGITS, 1.0, CANVAS)
    with pytest.raises(ValueError, match="`mask_token_id`.*vocabulary mismatch"):
        scheduler = LSDScheduler(mask_token_id=MASK + 1)
        scheduler.set_timesteps(2)
        scheduler.step(LOGITS, 1.0, torch.full((2, 8), MASK + 1))


@pytest.mark.parametrize("times", [-0.1, 1.1, math.nan, torch.tensor([0.5, 0.5, 0.5]), torch.tensor([])])
def test_bad_forward_times(times: Any) -> None:
    with pytest.raises(ValueError, match="`timesteps`"):
        LSDScheduler(mask_token_id=MASK).add_noise(CANVAS, times)
    with pytest.raises(ValueError, match="`mask_token_id`"):
        LSDScheduler().add_noise(CANVAS, 0.5)


@pytest.mark.gpu
@EACH_ORDER
def test_cpu_generator_gives_the_same_tokens_on_gpu(order: str) -> None:
    canvas = torch.full((4, 32), MASK)
    model, scheduler = fixed_model(canvas, MASK, torch.float64), LSDScheduler(mask_token_id=MASK, order=order)
    on_cpu = generate(scheduler, model, canvas, 6, generator=seeded())[-1]
    on_gpu = generate(scheduler, lambda x: model(x).cuda(), canvas.cuda(), 6, generator=seeded())[-1]
    assert torch.equal(on_cpu, on_gpu.cpu())


# ---- generations that are broken off, unusable logits, numbers learned for another sampler ----


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


def test_unusable_logits_are_noticed_even_when_nothing_is_revealed() -> None:
    scheduler = LSDScheduler(mask_token_id=MASK)
    scheduler.set_timesteps(100)
    with pytest.raises(ValueError, match="NaN"):
        scheduler.step(torch.full((1, 12, MASK), torch.nan), scheduler.timesteps[0], torch.full((1, 12), MASK))


def test_what_the_numbers_were_learned_for_cannot_be_overridden(tmp_path: Path) -> None:
    scheduler = LSDScheduler(mask_token_id=MASK, order="halton")
    scheduler.set_learned_sampler(uneven(2))
    scheduler.save_pretrained(tmp_path)
    assert LSDScheduler.from_pretrained(tmp_path, confidence_temperature=2.0).config.order == "halton"
    with pytest.raises(ValueError, match="`order` cannot be overridden"):
        LSDScheduler.from_pretrained(tmp_path, order="random")
    config = json.loads((tmp_path / "scheduler_config.json").read_text())
    del config["learned"]
    (tmp_path / "scheduler_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="scheduler_config.json.*`learned`"):
        LSDScheduler.from_pretrained(tmp_path)


def test_missing_folder_is_one_sentence() -> None:
    with pytest.raises(FileNotFoundError, match="no folder '/no/such/sampler'"):
        LSDScheduler.from_pretrained("/no/such/sampler")


def test_can_do_agrees_with_set_timesteps() -> None:
    plain, learned, table = (LSDScheduler(mask_token_id=MASK) for _ in range(3))
    learned.set_learned_sampler(uneven(2))
    table.set_learned_sampler(LearnedSampler({}, step_error()))
    for scheduler in (plain, learned, table):
        for steps in (1, 2, 3, 200):
            try:
                scheduler.set_timesteps(np.int64(steps))
            except ValueError:
                assert not scheduler.can_do(steps)
            else:
                assert scheduler.can_do(steps) and len(scheduler.timesteps) == steps
