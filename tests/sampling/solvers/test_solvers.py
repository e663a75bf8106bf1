"""Baselines that choose positions themselves: what each of them keeps, their calls, options and error messages."""

import math
from typing import Any

import pytest
import torch
from helpers.goodness_of_fit import p_value
from helpers.sampler_runs import seen
from helpers.tiny_oracle import FALSE_ALARM, MASK, NUM_SAMPLES, ORACLE, STATES, L, count_canvases
from helpers.tiny_pipelines import TEXT_MASK, amused, llada2
from hypothesis import given, settings
from hypothesis import strategies as st

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill, load_denoiser
from lsd_sampler.cli.train import build_parser
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
from lsd_sampler.sampling.logit_rows import DeferredLogits
from lsd_sampler.sampling.noise import NOISE_SCHEDULES
from lsd_sampler.sampling.schedules import GRIDS
from lsd_sampler.sampling.solvers import SOLVERS, OwnStep


BASELINES = [name for name in SOLVERS.names() if isinstance(SOLVERS[name], OwnStep)]
EACH = pytest.mark.parametrize("solver", BASELINES)
REMASKING = {
    "theta_rk2",
    "predictor_corrector",
    "dndm_k",
    "wino",
    "punt",
    "p2",
    *(name for name in BASELINES if "remdm" in name),
}
OFTEN: dict[str, dict[str, Any]] = {
    "remdm_cap": {"eta": 0.5},
    "remdm_rescale": {"eta": 0.5},
    "remdm_loop": {"eta": 0.5},
    "predictor_corrector": {"corrector_steps": 2, "corrector_entry": 0.8},
    "wino": {"threshold": 0.3, "threshold_back": 0.9},
}
"""Options with which a solver masks again so often that a test sees it."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fixed_logits(canvas: torch.Tensor, columns: int, seed: int = 0) -> torch.Tensor:
    """For each row the same in every batch, whatever the canvas."""
    rows = [2 * torch.randn(*canvas.shape[1:], columns, generator=seeded(seed + i)) for i in range(len(canvas))]
    return torch.stack(rows)


def chain(solver: str, length: int = 12, seed: int = 0, **config: Any) -> MaskedDiffusionPipeline:
    denoiser = load_denoiser(f"markov:V=4,L={length},seed={seed}")
    pipeline = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config(), solver=solver, **config))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


# ---- every generation ----


@settings(max_examples=200)
@given(
    solver=st.sampled_from(BASELINES),
    prediction_type=st.sampled_from(["logits", "log_score"]),
    noise_schedule=st.sampled_from(NOISE_SCHEDULES.names()),
    schedule=st.sampled_from(GRIDS.names()),
    steps=st.integers(1, 30),
    shape=st.sampled_from([(1,), (7,), (3, 4)]),
    batch=st.integers(1, 3),
    seed=st.integers(0, 1000),
    mask=st.integers(0, 6),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    draws=st.sampled_from([{}, {"temperature": 0.0}, {"temperature": math.inf}, {"top_p": 0.5}, {"top_k": 2}]),
    known=st.floats(0, 1),
)
def test_every_generation(
    solver, prediction_type, noise_schedule, schedule, steps, shape, batch, seed, mask, dtype, draws, known
) -> None:
    """M times that decrease in (0, 1]; what is given stays; no mask is left or drawn; the output says what changed."""
    vocab = 6
    columns = vocab if mask >= vocab else vocab + 1
    canvas = torch.randint(columns, (batch, *shape), generator=seeded(seed))
    canvas[torch.rand(canvas.shape, generator=seeded(seed)) >= known] = mask
    given_, logits = canvas != mask, fixed_logits(canvas, columns, seed).to(dtype)
    if len(shape) == 2:
        logits = logits.movedim(-1, 1).contiguous()
    scheduler = LSDScheduler(
        mask_token_id=mask, vocab_size=vocab, solver=solver, prediction_type=prediction_type,
        noise_schedule=noise_schedule, schedule=schedule, solver_options=OFTEN.get(solver),
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps
    assert times.shape == (steps,) and times.dtype == torch.float32
    assert 0 < times.min() and times.max() <= 1 and (times.diff() < 0).all()
    sample, generator = canvas, seeded(seed)
    for t in times:
        before = sample.clone()
        out = scheduler.step(**seen(scheduler, logits), timestep=t, sample=sample, generator=generator, **draws)
        assert torch.equal(sample, before)
        sample = out.prev_sample
        assert sample.shape == canvas.shape and sample.dtype == torch.int64
        assert torch.equal(sample[given_], canvas[given_])
        revealed, changed = (before == mask) & (sample != mask), (before != mask) & (before != sample)
        assert torch.equal(out.transfer_index, revealed) and torch.equal(out.editing_transfer_index, changed)
        assert not changed.any() or solver in REMASKING
        assert (out.sampled_probs[revealed] > 0).all() and (out.sampled_probs <= 1 + 1e-5).all()
        assert bool(scheduler.masks_left) == bool((sample == mask).any())
    assert not (sample == mask).any()
    assert 0 <= sample.min() and sample.max() < columns


@EACH
def test_known_tokens_are_masked_again_by_remasking_solvers_alone(solver: str) -> None:
    canvas = torch.full((32, 12), 4)
    scheduler = LSDScheduler(mask_token_id=4, solver=solver, solver_options=OFTEN.get(solver))
    scheduler.set_timesteps(24)
    sample, again, generator = canvas, 0, seeded(1)
    for t in scheduler.timesteps:
        # another opinion at every call, about known tokens too
        logits = torch.randn(32, 12, 4, generator=seeded(int(1e6 * t)))
        out = scheduler.step(**seen(scheduler, logits), timestep=t, sample=sample, generator=generator)
        sample = out.prev_sample
        again += int(out.editing_transfer_index.sum())
    assert (again > 0) == (solver in REMASKING)


@EACH
def test_same_seed_same_samples(solver: str) -> None:
    pipeline = chain(solver)
    first, again, other = (
        pipeline(num_samples=4, num_inference_steps=6, generator=seeded(s)).sequences for s in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


@EACH
def test_rows_depend_on_their_own_generator_alone(solver: str) -> None:
    pipeline = chain(solver, solver_options=OFTEN.get(solver))
    pipeline.denoiser.time_conditioned = True  # so that all sequences are in every call

    def run(rows: list[int]) -> torch.Tensor:
        options = {"num_inference_steps": 8, "generator": [seeded(10 + i) for i in rows]}
        return pipeline(num_samples=len(rows), **options).sequences

    together = run([0, 1, 2, 3])
    assert torch.equal(together, torch.cat([run([i]) for i in range(4)]))
    assert torch.equal(together[[3, 1]], run([3, 1]))


@EACH
def test_infilling(solver: str) -> None:
    template = torch.tensor([4, 2, 4, 4, 0, 1, 4, 4, 4, 4, 3, 4])
    sequences = chain(solver, solver_options=OFTEN.get(solver))(
        input_ids=template, num_samples=16, num_inference_steps=8, generator=seeded()
    ).sequences
    assert torch.equal(sequences[:, template != 4], template[template != 4].expand(16, -1))
    assert not (sequences == 4).any()


@EACH
def test_logits_row_by_row_are_the_same_logits(solver: str) -> None:
    """Whole logits, logits computed when they are read, and logits that the next call overwrites."""
    canvas = torch.full((3, 10), 5)
    head = torch.nn.Linear(4, 6, dtype=torch.float64)
    embedding = torch.randn(6, 4, generator=seeded(), dtype=torch.float64)

    def hidden(sample: torch.Tensor) -> torch.Tensor:
        around = embedding[sample]
        return around + around.roll(1, 1) + 2 * torch.arange(10)[:, None]

    buffer = torch.empty(3, 10, 4, dtype=torch.float64)
    whole = torch.empty(3, 10, 6, dtype=torch.float64)
    finals = []
    for output in (
        lambda sample: head(hidden(sample)),
        lambda sample: DeferredLogits(buffer.copy_(hidden(sample)), head, 6),
        lambda sample: whole.copy_(head(hidden(sample))),
    ):
        scheduler = LSDScheduler(mask_token_id=5, solver=solver, solver_options=OFTEN.get(solver))
        scheduler.set_timesteps(7)
        sample, generator = canvas, seeded(3)
        with torch.no_grad():
            for t in scheduler.timesteps:
                shown = seen(scheduler, output(sample))
                sample = scheduler.step(**shown, timestep=t, sample=sample, generator=generator).prev_sample
        finals.append(sample)
    assert torch.equal(finals[0], finals[1]) and torch.equal(finals[0], finals[2])


@EACH
def test_a_generation_may_begin_at_any_step(solver: str) -> None:
    """As image-to-image pipelines do."""
    canvas = torch.full((2, 9), 6)
    canvas[0, :3] = 1
    scheduler = LSDScheduler(mask_token_id=6, solver=solver)
    for start in range(6):
        scheduler.set_timesteps(6)
        sample, generator = canvas, seeded()
        for t in scheduler.timesteps[start:]:
            shown = seen(scheduler, fixed_logits(canvas, 6))
            sample = scheduler.step(**shown, timestep=t, sample=sample, generator=generator).prev_sample
        assert not (sample == 6).any() and (sample[0, :3] == 1).all()


# ---- where the law is the data's ----


@pytest.mark.parametrize(
    ("solver", "options"), [("k_gillespie", {}), ("entropy_bounded", {"gamma": 0.0}), ("random_steps", {})]
)
def test_one_token_a_step_is_exact(solver: str, options: dict[str, Any]) -> None:
    pipeline = MaskedDiffusionPipeline(ORACLE, LSDScheduler(mask_token_id=MASK, solver=solver, solver_options=options))
    pipeline.set_progress_bar_config(disable=True)
    assert p_value(count_canvases(pipeline, L)[-1], data_law()) > FALSE_ALARM


@pytest.mark.parametrize(
    "solver",
    ["k_gillespie", "theta_rk2", "theta_trapezoidal", "predictor_corrector", "remdm_cap", "remdm_rescale", "dndm"],
)
def test_more_calls_come_closer_to_the_data(solver: str) -> None:
    pipeline = MaskedDiffusionPipeline(ORACLE, LSDScheduler(mask_token_id=MASK, solver=solver))
    pipeline.set_progress_bar_config(disable=True)
    few, many = (torch.from_numpy(count_canvases(pipeline, M)[-1]) / NUM_SAMPLES for M in (2, 48))
    law = torch.from_numpy(data_law())
    assert (many - law).abs().sum() < 0.4 * (few - law).abs().sum()


def data_law() -> Any:
    P, start = ORACLE.transition.numpy(), ORACLE.initial.numpy()
    known = [MASK not in x for x in STATES]
    law = [start[x[0]] * P[x[0], x[1]] * P[x[1], x[2]] if ok else 0.0 for x, ok in zip(STATES, known, strict=True)]
    return torch.tensor(law, dtype=torch.float64).numpy()


# ---- network calls ----


def grid(num_steps: int) -> torch.Tensor:
    return torch.linspace(1, 1e-4, num_steps + 1, dtype=torch.float64)


@EACH
@pytest.mark.parametrize("steps", [1, 2, 5, 8, 24])
def test_calls(solver: str, steps: int) -> None:
    """Never more than M; a step has as many as are declared."""
    pipeline = chain(solver)
    pipeline.denoiser.time_conditioned = True
    made: list[int] = []
    pipeline.denoiser.register_forward_hook(lambda module, args, out: made.append(len(args[0])))
    out = pipeline(num_samples=8, num_inference_steps=steps, generator=seeded())
    assert out.network_calls == len(made) <= steps and out.sequence_calls.sum() == sum(made)
    declared = SOLVERS[solver].evals_per_step
    times, places = SOLVERS[solver].calls(grid, steps, SOLVERS[solver].read_options(None))
    assert len(times) == len(places) + 1 == steps + 1
    if solver != "predictor_corrector":  # its options say how many correctors a step has
        assert places == [k % declared for k in range(steps)]


# ---- options and mistakes ----


@pytest.mark.parametrize(
    ("solver", "common", "options"),
    [
        ("theta_rk2", {}, {"theta": 0.3}),
        ("theta_trapezoidal", {}, {"theta": 0.3}),
        ("predictor_corrector", {}, {"corrector_entry": 0.5}),
        ("predictor_corrector", {"corrector_entry": 0.5}, {"corrector_steps": 2}),
        ("predictor_corrector", {"corrector_entry": 0.5}, {"corrector_scale": 0.5}),
        ("remdm_cap", {}, {"eta": 0.5}),
        ("remdm_rescale", {}, {"eta": 0.5}),
        ("remdm_loop", {}, {"eta": 0.5}),
        ("remdm_loop", {}, {"t_on": 0.3}),
        ("remdm_loop", {}, {"t_off": 0.3}),
        ("remdm_loop", {}, {"alpha_on": 0.5}),
        ("dndm", {}, {"weights": "cosine"}),
        ("dndm", {"weights": "beta"}, {"alpha": 2}),
        ("dndm_k", {"weights": "beta"}, {"beta": 1}),
        ("dndm", {"weights": "beta"}, {"training_steps": 50}),
        ("dndm_k", {}, {"greedy": True}),
        ("entropy_bounded", {}, {"gamma": 2}),
        ("entropy_bounded", {"gamma": 2}, {"proxy": "confidence"}),
        ("fast_dllm_threshold", {}, {"threshold": 0.2}),
        ("fast_dllm_factor", {}, {"factor": 3}),
        ("klass", {"kl_threshold": 1.0}, {"confidence_threshold": 0.3}),
        ("klass", {"confidence_threshold": 0.3}, {"kl_threshold": 1.0}),
        ("klass", {"confidence_threshold": 0.3, "kl_threshold": 1.0}, {"history_length": 4}),
        ("klass", {"confidence_threshold": 0.3, "kl_threshold": 1.0}, {"reveals": "max_conf"}),
        ("klass", {"confidence_threshold": 0.3, "kl_threshold": 1.0, "reveals": "max_conf"}, {"reveals": "min_kl"}),
        ("klass", {}, {"block_length": 5}),
        ("wino", {}, {"threshold": 0.3}),
        ("wino", {"threshold": 0.3}, {"threshold_back": 0.5}),
        ("punt", {}, {"epsilon": 0.5}),
        ("mean_field", {"threshold": 0.5}, {"threshold": 0.7}),
        ("mean_field", {"threshold": 0.5}, {"rounds": 1}),
        ("mean_field", {}, {"block_length": 4}),
        ("prophet", {}, {"early": 0.05}),
        ("prophet", {}, {"middle": 0.5}),
        ("prophet", {}, {"late": 0.5}),
        ("prophet", {"late": 1.0}, {"lead": "least"}),
        ("credit_decoding", {}, {"threshold": 0.2}),
        ("credit_decoding", {}, {"alpha": 3}),
        ("credit_decoding", {"alpha": 3}, {"beta": 0}),
        ("credit_decoding", {"alpha": 3}, {"gamma": 5}),
        ("p2", {"score": "random"}, {"score": "confidence"}),
        ("dus", {}, {"levels": "binary"}),
        ("dus", {}, {"base": 3}),
        ("dus", {}, {"base_skip": 2}),
        ("dus", {}, {"remask_below": 0.6}),
    ],
)
def test_options_change_what_is_drawn(solver: str, common: dict[str, Any], options: dict[str, Any]) -> None:
    call = {"num_samples": 32, "num_inference_steps": 12}
    first, second = (
        chain(solver, solver_options=given)(generator=seeded(), **call).sequences
        for given in (common, {**common, **options})
    )
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"solver": "remdm_cap", "solver_options": {"beta": 1}},
            r"`solver_options` holds 'beta'.*'remdm_cap'.*\['eta'\]",
        ),
        ({"solver": "tweedie", "solver_options": {"eta": 1}}, "`solver_options` holds 'eta'.*'tweedie' has none"),
        ({"solver": "remdm_cap", "solver_options": {"eta": 1.5}}, r"`solver_options\['eta'\]`.*\[0, 1\].*1.5"),
        ({"solver": "remdm_cap", "solver_options": {"eta": True}}, r"`solver_options\['eta'\]`"),
        ({"solver": "remdm_cap", "solver_options": {"eta": math.nan}}, r"`solver_options\['eta'\]`"),
        ({"solver": "remdm_cap", "solver_options": "eta"}, "`solver_options` must be a dict"),
        ({"solver": "theta_rk2", "solver_options": {"theta": 1.0}}, r"`solver_options\['theta'\]`.*\(0, 1\)"),
        ({"solver": "dndm", "solver_options": {"weights": "sine"}}, r"`solver_options\['weights'\]`.*'cosine'"),
        ({"solver": "predictor_corrector", "solver_options": {"corrector_steps": 0.5}}, "an integer"),
        ({"solver": "klass", "solver_options": {"history_length": 0}}, r"`solver_options\['history_length'\]`.*0"),
        ({"solver": "dus", "solver_options": {"base": 0}}, r"`solver_options\['base'\]`.*0"),
        ({"solver": "punt", "solver_options": {"epsilon": -1}}, r"`solver_options\['epsilon'\]`.*-1"),
        ({"solver": "p2", "solver_options": {"score": "best"}}, r"`solver_options\['score'\]`.*'random'"),
        ({"solver": "prophet", "solver_options": {"lead": 1}}, r"`solver_options\['lead'\]`.*'least'"),
        ({"solver": "wino", "solver_options": {"threshold": 2}}, r"`solver_options\['threshold'\]`.*2"),
        ({"solver": "dndm", "order": "halton"}, "`order` 'halton'.*'dndm'"),
        (
            {"solver": "dndm", "corruption": "uniform", "vocab_size": 4, "mask_token_id": None},
            "`solver` 'dndm' is for",
        ),
    ],
)
def test_bad_configs(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LSDScheduler(**{"mask_token_id": 4, **config})


@EACH
def test_nothing_is_learned_for_a_baseline(solver: str) -> None:
    scheduler = LSDScheduler(mask_token_id=4, solver=solver)
    steps = LearnedSteps.plain(torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64))
    with pytest.raises(ValueError, match=f"`solver` '{solver}' is a baseline"):
        scheduler.set_learned_sampler(LearnedSampler({2: steps}))
    with pytest.raises(ValueError, match=f"`solver` '{solver}' is a baseline.*tweedie"):
        DistillConfig(solver=solver)
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--model", "countdown", "--solver", solver])


def test_a_pipeline_with_a_baseline_can_be_distilled() -> None:
    pipeline = chain("remdm_cap", length=8, solver_options={"eta": 0.5})
    learned = distill(pipeline, DistillConfig(method="path_kl", nfe=(2,), num_sequences=2))
    assert (learned.config.solver, learned.config.solver_options) == ("tweedie", None)


def test_unusable_logits_are_noticed() -> None:
    for solver in BASELINES:
        scheduler = LSDScheduler(mask_token_id=4, solver=solver)
        scheduler.set_timesteps(3)
        with pytest.raises(ValueError, match="NaN"):
            shown = seen(scheduler, torch.full((1, 6, 4), math.nan))
            scheduler.step(**shown, timestep=0, sample=torch.full((1, 6), 4))


# ---- diffusers' pipelines ----


@pytest.mark.parametrize("solver", [name for name in BASELINES if not SOLVERS[name].reads_shadow])  # pyright: ignore
def test_block_by_block_in_llada2(solver: str) -> None:
    pipe = llada2()
    pipe.scheduler = LSDScheduler(mask_token_id=TEXT_MASK, solver=solver)
    options = {"use_chat_template": False, "gen_length": 12, "block_length": 6, "num_inference_steps": 4}
    tokens = pipe("a b c", temperature=1.0, eos_early_stop=False, generator=seeded(), **options).sequences
    assert tokens.shape == (1, 12) and not (tokens == TEXT_MASK).any()


@pytest.mark.parametrize("solver", ["theta_trapezoidal", "remdm_conf", "fast_dllm_factor"])
def test_images_in_amused(solver: str) -> None:
    pipe = amused()
    pipe.scheduler = LSDScheduler.from_config(pipe.scheduler.config, solver=solver)
    canvas = pipe(["a cat", "dog"], num_inference_steps=5, output_type="latent", generator=seeded()).images
    assert canvas.shape == (2, 8, 8) and int(canvas.max()) < 8


@pytest.mark.gpu
@EACH
def test_a_cpu_seed_gives_the_same_tokens_on_gpu(solver: str) -> None:
    canvas = torch.full((3, 16), 4)
    finals = []
    for device in ("cpu", "cuda"):
        scheduler = LSDScheduler(mask_token_id=4, solver=solver, solver_options=OFTEN.get(solver))
        scheduler.set_timesteps(9, device=device)
        sample, generator, logits = canvas.to(device), seeded(), fixed_logits(canvas, 4).double().to(device)
        for t in scheduler.timesteps:
            sample = scheduler.step(
                **seen(scheduler, logits), timestep=t, sample=sample, generator=generator
            ).prev_sample
        finals.append(sample.cpu())
    assert torch.equal(*finals)
