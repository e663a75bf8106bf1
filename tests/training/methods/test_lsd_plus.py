"""lsd+: steps and coefficients over the same interval as the teacher, relaxed starts, degenerate objectives."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.learned_tensors import same_learned

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill
from lsd_sampler.cli import train
from lsd_sampler.denoisers import MarkovDenoiser, countdown, random_chain
from lsd_sampler.evaluation import reverse_kl_per_transition
from lsd_sampler.sampling.noise import Geometric
from lsd_sampler.sampling.pipeline_runs import PipelineRuns
from lsd_sampler.training.methods import lsd_plus
from lsd_sampler.training.paths import PathRecorder


class ScoreOracle(MarkovDenoiser):
    """The oracle as a model of the concrete score under geometric noise, off by a factor `(1 + t)^power`."""

    prediction_type = "log_score"
    time_conditioned = True
    power = 0.0

    def __init__(self, chain: MarkovDenoiser, power: float = 0.0):
        super().__init__(chain.transition, chain.initial, chain.length)
        self.noise, self.power = Geometric(0.01, 5.0), power

    @torch.no_grad()
    def forward(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
        assert t is not None
        time = t[0].double()
        factor = self.noise.alpha(time) / self.noise.masked(time) * (1 + time) ** self.power
        return super().forward(tokens) + factor.log()


def learn(
    denoiser: MarkovDenoiser, call: dict[str, Any] | None = None, **options: Any
) -> tuple[LSDScheduler, list[dict[str, Any]]]:
    """The learned sampler, and the records of its steps."""
    records: list[dict[str, Any]] = []
    pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config()))
    config = DistillConfig(**{"method": "lsd+", "num_sequences": 16, **options})
    scheduler = distill(pipe, config, log=records.append, **(call or {}))
    return scheduler, [r for r in records if r["event"] == "steps"]


def quality(chain: MarkovDenoiser, scheduler: LSDScheduler, steps: int) -> float:
    pipe = MaskedDiffusionPipeline(chain, scheduler)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(7)
    x = pipe(num_samples=512, num_inference_steps=steps, generator=generator, output_type="ids").sequences
    return reverse_kl_per_transition(x, chain.transition)


# ---- steps ----


@pytest.mark.parametrize("relaxation", [0.0, 0.05])
def test_steps_beat_the_uniform_grid_on_the_exact_oracle(relaxation: float) -> None:
    """By their own objective, and in samples."""
    chain = countdown(16, 64)
    scheduler, records = learn(chain, nfe=(4, 8), num_sequences=32, relaxation=relaxation)
    uniform = LSDScheduler(**chain.scheduler_config())
    for record in records:
        assert record["objective"] < 0.95 * record["objective_uniform"]
        assert quality(chain, scheduler, record["nfe"]) < 0.7 * quality(chain, uniform, record["nfe"])


def test_the_best_grid_is_found_where_all_can_be_tried() -> None:
    """One split of 12 teacher steps: the objective of each, from its replays, against what the search returns."""
    chain, options = countdown(6, 12), {"nfe": (2,), "relaxation": 0.0, "num_sequences": 64}
    scheduler, (record,) = learn(chain, epochs=50, **options)
    search = search_of(chain, **options)
    objectives = {bound: search.replay([0, bound, 12]) for bound in range(1, 12)}
    assert record["objective"] == pytest.approx(min(objectives.values()), rel=1e-12)
    best = min(objectives, key=objectives.__getitem__)
    assert scheduler.steps_for(2).timesteps.tolist() == search.times[[0, best, 12]].tolist()
    assert best != 6 and record["objective_uniform"] == objectives[6]


def search_of(chain: MarkovDenoiser, **options: Any) -> Any:
    """What tries the grids, before it has tried any."""
    searches = []

    class Kept(lsd_plus._GridSearch):
        def solve(self, *_: Any) -> Any:
            searches.append(self)
            raise StopIteration

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lsd_plus, "_GridSearch", Kept)
        with pytest.raises(StopIteration):
            learn(chain, **options)
    return searches[0]


@pytest.mark.parametrize("order", ["random", "halton"])
@pytest.mark.parametrize("count", ["exact", "bernoulli"])
def test_grids_fall_from_1_to_eps_and_never_lose_to_the_uniform_one(order: str, count: str) -> None:
    scheduler, records = learn(random_chain(4, 16), order=order, count=count, nfe=(1, 2, 5, 16), teacher_steps=40)
    for record in records:
        times = scheduler.steps_for(record["nfe"]).timesteps
        assert float(times[0]) == 1 and float(times[-1]) == scheduler.config.sampling_eps
        assert bool((times.diff() < 0).all()) and len(times) == record["nfe"] + 1
        assert record["objective"] <= record["objective_uniform"]


def test_a_grid_of_all_the_teachers_steps_is_the_teacher() -> None:
    scheduler, (record,) = learn(random_chain(4, 8), nfe=(8,))
    uniform = LSDScheduler(**random_chain(4, 8).scheduler_config()).steps_for(8)
    assert torch.equal(scheduler.steps_for(8).timesteps, uniform.timesteps)
    assert torch.equal(scheduler.steps_for(8).score_coefficients, uniform.score_coefficients)


def test_the_search_ends_when_a_grid_comes_again() -> None:
    chain = countdown(8, 32)
    calls = []
    chain.register_forward_pre_hook(lambda *_: calls.append(0))
    few, _ = learn(chain, nfe=(4,), epochs=20)
    spent = len(calls)
    many, _ = learn(chain, nfe=(4,), epochs=200)
    assert len(calls) == 2 * spent < 1 + 32 + 20 * 4
    assert torch.equal(few.steps_for(4).timesteps, many.steps_for(4).timesteps)


def test_numbers_do_not_depend_on_the_batch_size() -> None:
    whole, batches = (learn(countdown(8, 32), nfe=(4,), batch_size=size)[0].steps_for(4) for size in (16, 5))
    assert torch.equal(whole.timesteps, batches.timesteps)


# ---- coefficients ----


def test_coefficients_of_a_normalised_denoiser_follow_from_the_noise() -> None:
    """1 for tweedie, and for euler under log-linear noise: there the steps say it all."""
    chain = random_chain(4, 16)
    for solver in ("tweedie", "euler"):
        scheduler, _ = learn(chain, solver=solver, nfe=(4,))
        assert bool((scheduler.steps_for(4).score_coefficients == 1).all())


def test_coefficients_make_up_for_eulers_error() -> None:
    """With them, the share of tokens known at each of the student's times is the teacher's. In closed form."""
    chain = random_chain(4, 64)
    chain.noise = Geometric(0.01, 5.0)
    scheduler, _ = learn(chain, solver="euler", teacher_solver="tweedie", nfe=(4,), teacher_steps=64)
    steps, noise = scheduler.steps_for(4), chain.noise
    t, s = steps.timesteps[:-1], steps.timesteps[1:]
    expected = (noise.alpha(s) - noise.alpha(t)) / noise.masked(t)
    ours = steps.score_coefficients * (t - s) * noise.rate(t) * noise.alpha(t) / noise.masked(t)
    torch.testing.assert_close(ours[:-1], expected[:-1], rtol=1e-9, atol=0)
    assert float((steps.score_coefficients[:-1] - 1).abs().max()) > 0.1


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_coefficients_of_a_score_model(power: float) -> None:
    """They make the share that a step reveals the teacher's, whose own error in the score stays: the ratio of rates.

    The teacher's is a Monte Carlo mean of at least 2,000 tokens in each step: 4 standard errors are below 0.08.
    """
    denoiser, num = ScoreOracle(random_chain(4, 64), power), 128
    options = {"count": "bernoulli", "solver": "euler", "nfe": (4,), "teacher_steps": 64, "num_sequences": num}
    scheduler, (record,) = learn(denoiser, **options)
    steps, noise = scheduler.steps_for(4), denoiser.noise
    assert record["objective"] <= record["objective_uniform"]
    grid = LSDScheduler(sampling_eps=scheduler.config.sampling_eps).steps_for(64).timesteps

    def rate(t: torch.Tensor) -> torch.Tensor:
        return noise.rate(t) * noise.alpha(t) / noise.masked(t) * (1 + t) ** power

    reveal = ((grid[:-1] - grid[1:]) * rate(grid[:-1])).clamp(max=1)
    for k in range(3):
        t, s = steps.timesteps[k : k + 2]
        inside = (grid[:-1] <= t + 1e-9) & (grid[:-1] > s + 1e-9)
        expected = (1 - (1 - reveal[inside]).prod()) / ((t - s) * rate(t))
        assert float(steps.score_coefficients[k]) == pytest.approx(float(expected), rel=0.08)


def test_the_teacher_may_have_another_solver() -> None:
    """Geometric noise, where euler lags behind tweedie: the canvases are those of that teacher."""
    for method in ("lsd+", "lsd", "jys", "path_kl"):
        paths = []
        for solver, teacher_solver in (("tweedie", None), ("tweedie", "euler"), ("euler", None)):
            after, call = canvases_after_steps()
            options = {"solver": solver, "teacher_solver": teacher_solver, "order": "random", "epochs": 1}
            chain = ScoreOracle(random_chain(4, 16))
            learn(chain, call, method=method, nfe=(4,), teacher_steps=16, **options)
            paths.append(torch.stack(after[1:17]))
        assert not torch.equal(paths[0], paths[1]) and torch.equal(paths[1], paths[2])
    with pytest.raises(ValueError, match="`solver`"):
        DistillConfig(teacher_solver="heun")
    with pytest.raises(ValueError, match="`teacher_solver`.*`order` 'random'"):
        DistillConfig(method="path_kl", teacher_solver="predictor_corrector")


@pytest.mark.parametrize("teacher_solver", ["predictor_corrector", "theta_trapezoidal", "remdm_cap"])
@pytest.mark.parametrize("method", ["lsd", "lsd+", "jys", "path_kl"])
def test_the_teacher_may_be_a_baseline(method: str, teacher_solver: str) -> None:
    """Which may mask again, and makes as many calls as it is asked for."""
    chain = random_chain(4, 16)
    chain.time_conditioned = True
    calls: list[int] = []
    chain.register_forward_pre_hook(lambda *_: calls.append(0))
    options = {"nfe": (2, 4), "teacher_steps": 24, "order": "random", "num_sequences": 4}
    scheduler, records = learn(chain, method=method, teacher_solver=teacher_solver, **options)
    assert scheduler.config.solver == "tweedie" and sorted(scheduler.learned_sampler.steps) == [2, 4]
    assert all(record["network_calls"] <= len(calls) for record in records)
    if method == "lsd":
        assert len(calls) == 1 + 24 + 6


# ---- two degenerate objectives ----


def test_the_literal_objective_shrinks_the_steps_to_the_teachers() -> None:
    """Eq. 8 with an unnormalised distance: kappa = (1 - eps) / N, whatever M is; the last time is far from eps."""
    scheduler, _ = learn(random_chain(4, 16), variant="literal", nfe=(2, 4), teacher_steps=16)
    eps = scheduler.config.sampling_eps
    for M in (2, 4):
        times = scheduler.steps_for(M).timesteps
        torch.testing.assert_close(-times.diff(), torch.full((M,), (1 - eps) / 16, dtype=torch.float64))
        assert float(times[-1]) == pytest.approx(1 - M * (1 - eps) / 16)


def test_the_literal_objective_of_scores_is_minimal_at_those_steps() -> None:
    """`sum s* log(s* / b) - s* + b` for `b = kappa s N / (1 - eps)`, by the canvases that were compared."""
    denoiser = ScoreOracle(random_chain(4, 16), 1.0)
    options = {"variant": "literal", "count": "bernoulli", "solver": "euler", "nfe": (4,), "teacher_steps": 16}
    scheduler, _ = learn(denoiser, **options)
    kappa = -scheduler.steps_for(4).timesteps.diff()
    share = (1 - scheduler.config.sampling_eps) / 16
    # at one time all positions of this model have one mass: the ratio of total scores is 1
    torch.testing.assert_close(kappa, torch.full_like(kappa, share))


def test_the_literal_objective_has_no_gradient_where_the_distance_is_normalised() -> None:
    scheduler, _ = learn(random_chain(4, 16), variant="literal", domain="log_score", nfe=(4,), teacher_steps=16)
    uniform = LSDScheduler(**random_chain(4, 16).scheduler_config()).steps_for(4)
    assert torch.equal(scheduler.steps_for(4).timesteps, uniform.timesteps)


def test_on_its_own_canvases_the_student_would_retrace_the_teacher() -> None:
    """The teacher's first steps, then one jump: better by that objective, much worse as a sampler."""
    chain = countdown(16, 64)
    scheduler, (record,) = learn(chain, variant="own_canvas", relaxation=0.0, nfe=(4,), num_sequences=32)
    teacher = LSDScheduler(**chain.scheduler_config()).steps_for(64).timesteps
    assert torch.equal(scheduler.steps_for(4).timesteps, teacher[[0, 1, 2, 3, 64]])
    assert record["objective"] < 0.2 * record["objective_uniform"]
    assert quality(chain, scheduler, 4) > 2 * quality(chain, LSDScheduler(**chain.scheduler_config()), 4)


# ---- the relaxed start ----


@pytest.mark.parametrize("variant", ["interval", "own_canvas"])
@pytest.mark.parametrize("filler", ["random", "teacher"])
def test_in_training_the_student_is_that_far_from_the_teacher(variant: str, filler: str) -> None:
    """On every canvas but the first, which the pipeline makes; `own_canvas` of a student that is the teacher."""
    after: dict[float, list[torch.Tensor]] = {}
    options = {"variant": variant, "relaxation_filler": filler, "epochs": 1, "nfe": (16,), "teacher_steps": 16}
    for relaxation in (0.0, 0.25):
        after[relaxation], call = canvases_after_steps()
        scheduler, _ = learn(random_chain(4, 16), call, relaxation=relaxation, **options)
    (_, *teacher), student = after[0.0][:17], after[0.25][17:]
    distances = [(a != b).sum(1) for a, b in zip(teacher[:-1], student[:-1], strict=True)]
    assert bool((distances[0] >= 3).all())  # one of the four may be what the first step reveals
    if variant == "interval":
        assert all(bool((distance <= 4).all()) for distance in distances)
    # and never in sampling
    sampled, call = canvases_after_steps()
    pipe = MaskedDiffusionPipeline(random_chain(4, 16), scheduler)
    generators = PipelineRuns(pipe, 0, {}).generators(range(16))
    pipe(num_samples=16, num_inference_steps=16, generator=generators, output_type="ids", **call)
    assert all(torch.equal(a, b) for a, b in zip(sampled, teacher, strict=True))


def canvases_after_steps() -> tuple[list[torch.Tensor], dict[str, Any]]:
    """Filled by calls of a pipeline with these arguments."""
    after: list[torch.Tensor] = []

    def keep(pipe: Any, step: int, t: Any, tensors: dict[str, torch.Tensor]) -> None:
        after.append(tensors["sample"])

    return after, {"callback_on_step_end": keep}


def test_lsd_can_be_relaxed_and_0_is_off() -> None:
    def coefficients(**options: Any) -> list[float]:
        scheduler, _ = learn(random_chain(4, 16), method="lsd", nfe=(4,), teacher_steps=16, **options)
        return scheduler.steps_for(4).log_score_coefficients.tolist()

    off = coefficients()
    assert coefficients(relaxation=0.0) == coefficients(relaxation=0.01) == off  # 1 % of 16 is none
    assert coefficients(relaxation=0.2) != off
    assert coefficients(relaxation=0.2, relaxation_filler="random") != coefficients(relaxation=0.2)


# ---- paths, cost, resume, command line ----


def test_paths_hold_all_canvases_of_the_teacher() -> None:
    chain = random_chain(4, 12)
    canvases: list[torch.Tensor] = []
    chain.register_forward_pre_hook(lambda _, args: canvases.append(args[0].clone()))
    call = {"prefix": [1, 2]}
    runs = PipelineRuns(MaskedDiffusionPipeline(chain, LSDScheduler(**chain.scheduler_config())), 0, call)
    recorder = PathRecorder(**chain.scheduler_config())
    runs.run(recorder, 10, range(5))
    (path,) = recorder.paths
    assert all(torch.equal(path.before(k, 4), canvas) for k, canvas in enumerate(canvases))
    assert not bool((path.before(10, 4) == 4).any())
    assert bool((path.step_BL[:, :2] == -1).all()) and bool((path.step_BL[:, 2:] >= 0).all())


class Killed(Exception):
    pass


@pytest.mark.parametrize("options", [{"batch_size": 3}, {"variant": "literal"}, {"method": "jys", "batch_size": 3}])
@pytest.mark.parametrize("after", [1, 15, 60])
def test_a_killed_run_goes_on_to_the_same_result(options: dict[str, Any], after: int, tmp_path: Path) -> None:
    options = {"nfe": (2, 4), "num_sequences": 5, **options}
    whole, logged = learn(countdown(4, 12), **options)
    broken, calls = countdown(4, 12), itertools.count()

    def kill(*_: Any) -> None:
        if next(calls) == after:
            raise Killed

    broken.register_forward_pre_hook(kill)
    if options.get("variant") != "literal" or after < 19:
        with pytest.raises(Killed):
            learn(broken, {"checkpoint_dir": tmp_path}, **options)
    resumed, again = learn(countdown(4, 12), {"checkpoint_dir": tmp_path, "resume": True}, **options)
    assert same_learned(whole, resumed)
    assert [r["network_calls"] for r in again] == [r["network_calls"] for r in logged]


@pytest.mark.parametrize(
    "options", [["--method", "lsd+"], ["--method", "lsd+", "--variant", "literal"], ["--method", "jys"]]
)
def test_from_the_command_line(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sampler, card and cost: `--dry-run` says how many calls there will be at most, and just how many if no search
    ends early.
    """
    calls, forward = [0], MarkovDenoiser.forward

    def counted(self: MarkovDenoiser, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls[0] += 1
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(MarkovDenoiser, "forward", counted)
    argv = ["--model", "countdown:V=4,L=16", *options, "--nfe", "2", "4", "--num-sequences", "8", "--epochs", "1"]
    argv += ["--batch-size", "3", "--output-dir", str(tmp_path / "out")]
    assert train.main([*argv, "--dry-run"]) == 0
    planned = json.loads(capsys.readouterr().out)["network_calls"]
    assert train.main(argv) == 0
    out = capsys.readouterr().out
    (done,) = [r for r in map(json.loads, (tmp_path / "out" / "metrics.jsonl").open()) if r["event"] == "done"]
    assert done["network_calls"] == calls[0] and f"Network calls: {calls[0]}." in out
    assert calls[0] == planned if "lsd+" in options else calls[0] < planned
    assert "   4 calls  timesteps: 1.0000 " in out
    loaded = LSDScheduler.from_pretrained(tmp_path / "out")
    assert loaded.available_num_inference_steps == [2, 4]
    assert options[1] in (tmp_path / "out" / "README.md").read_text()


def test_noise_without_masks_is_refused() -> None:
    chain = countdown(4, 8)
    pipe = MaskedDiffusionPipeline(chain, LSDScheduler(corruption="uniform", vocab_size=4))
    for method in ("lsd+", "jys"):
        with pytest.raises(ValueError, match="`method`"):
            distill(pipe, DistillConfig(method=method, nfe=(2,)))


def test_a_sampler_for_a_prompt() -> None:
    scheduler, _ = learn(countdown(4, 16), {"prefix": [1, 0]}, nfe=(3,))
    assert math.isclose(float(scheduler.steps_for(3).timesteps[0]), 1.0)
