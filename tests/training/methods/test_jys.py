"""jys: its objective and search against the authors' code and enumeration, nested schedules, what it costs."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.golden_files import fixture_path
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill
from lsd_sampler.denoisers import MarkovDenoiser, countdown, random_chain
from lsd_sampler.evaluation import reverse_kl_per_transition
from lsd_sampler.sampling.pipeline_runs import PipelineRuns
from lsd_sampler.training.cost import network_calls
from lsd_sampler.training.methods.jys import (
    CELLS,
    KLUBRecorder,
    Visit,
    golden_section,
    klub_terms,
    make_distinct,
    split_intervals,
    spread,
)
from lsd_sampler.training.paths import PathRecorder
from lsd_sampler.training.teacher_plan import TeacherPlan


def search(f: Callable[[float], float], low: float, high: float, **options: Any) -> tuple[float, list[float]]:
    """The result, and the points that were evaluated."""
    evaluated, running = [], golden_section(low, high, **options)
    points = next(running)
    while True:
        evaluated += points
        try:
            points = running.send([f(x) for x in points])
        except StopIteration as done:
            return done.value, evaluated


def test_search_evaluates_the_points_of_the_authors() -> None:
    fixture = load_file(fixture_path("transitions", "lsd_jys.safetensors"))
    found, evaluated = search(lambda v: (v - 0.3137) ** 2 + 0.05 * math.cos(3 * v), 1e-5, 1.0, tolerance=0.25 / 64)
    assert found == float(fixture["golden.argmin"])
    assert evaluated == fixture["golden.evaluated"].tolist()


@given(st.floats(0.01, 0.99), st.floats(0.0, 0.9), st.floats(0.002, 1.0))
def test_search_stays_inside_ends_and_returns_the_best_that_it_saw(place: float, low: float, width: float) -> None:
    best = low + place * width
    found, evaluated = search(lambda x: abs(x - best), low, low + width)
    assert abs(found - best) == min(abs(x - best) for x in evaluated)
    assert all(low <= x <= low + width for x in evaluated) and len(evaluated) <= 3 + 32
    assert len(set(evaluated)) == len(evaluated)


def test_klub_is_that_of_the_authors() -> None:
    fixture = load_file(fixture_path("transitions", "lsd_jys.safetensors"))
    recorder, mask = KLUBRecorder(mask_token_id=6, prediction_type="log_score"), 6
    t1, t2, t3 = fixture["klub.t1_t2_tnext"].double().tolist()
    masked_BL = fixture["klub.xt2"] == mask  # elsewhere the second rates are 0
    assert bool((fixture["klub.xt1"][masked_BL] == mask).all())
    rates = [recorder.rates(fixture[f"klub.log_score{i}"][masked_BL][:, :mask], t) for i, t in ((1, t1), (2, t2))]
    klub = (t2 - t3) * klub_terms(*rates).sum() / masked_BL.numel()
    assert float(klub) == pytest.approx(float(fixture["klub.value"]), rel=1e-5)


@pytest.mark.parametrize("count", ["exact", "bernoulli"])
def test_recorded_klub_is_the_one_of_noised_data(count: str) -> None:
    """Recomputed from the canvases that the network saw, for two intervals and three points."""
    chain, num = random_chain(4, 12), 6
    chain.time_conditioned = True
    pipe = MaskedDiffusionPipeline(chain, LSDScheduler(**chain.scheduler_config()))
    runs = PipelineRuns(pipe, 0, {})
    teacher, recorder = (kind(**chain.scheduler_config(), count=count) for kind in (PathRecorder, KLUBRecorder))
    runs.run(teacher, 12, range(num))
    visits = [Visit(1.0, True), Visit(0.8, False, 0.5), Visit(0.6, False, 0.5), Visit(0.5, True), Visit(0.3, False, 0)]
    canvases: list[torch.Tensor] = []
    hook = chain.register_forward_pre_hook(lambda _, args: canvases.append(args[0].clone()))
    recorder.follow(visits)
    recorder.noise_from(teacher.paths)
    runs.run(recorder, len(visits), range(num))
    hook.remove()

    for earlier, later in itertools.pairwise(canvases):  # nested, and of the same data
        assert bool(((earlier == later) | (earlier == 4)).all())
    assert bool(((canvases[-1] == teacher.paths[0].final_BL) | (canvases[-1] == 4)).all())
    if count == "exact":
        for canvas, visit in zip(canvases, visits, strict=True):
            assert (canvas == 4).sum(1).tolist() == [12 - round(12 * (1 - visit.t))] * num

    def rate(k: int) -> np.ndarray:  # 1 / t, as alpha = 1 - (1 - eps) t
        masked = (canvases[k] == 4)[..., None]
        return (chain(canvases[k]).exp() * masked / visits[k].t).numpy()

    expected = []
    for begin, point in ((0, 1), (0, 2), (3, 4)):
        r1, r2 = rate(begin), rate(point)
        terms = r2 * (np.log(r2 + 1e-8) - np.log(r1 + 1e-8))
        expected.append((visits[point].t - visits[point].ends_at) * terms.sum(-1).mean())
    assert [float(recorder.sums[k] / recorder.num_positions) for k in (1, 2, 4)] == pytest.approx(expected, rel=1e-6)
    assert recorder.sums[0] == recorder.sums[3] == 0 and min(expected) > 0


def test_searches_that_go_on_together_find_what_each_would_alone() -> None:
    ends, visited = [1.0, 0.6, 0.55, 0.1], []

    def value(visit: Visit) -> float:
        return 0.0 if visit.begins else math.sin(9 * visit.t) + visit.t * visit.ends_at

    def evaluate(visits: list[Visit]) -> list[float]:
        times = [visit.t for visit in visits]
        assert times == sorted(times, reverse=True) and len(set(times)) == len(times)
        visited.append(len(visits))
        return [value(visit) for visit in visits]

    found = split_intervals(ends, evaluate)
    for t, t1, t3 in zip(found, ends, ends[1:], strict=False):
        alone, _ = search(lambda t, t3=t3: -value(Visit(t, False, t3)), t3 + 1e-3, t1 - 1e-3)
        assert t == alone and t3 < t < t1
    assert visited[:2] == [4 * 3, 2 * 3] and visited == sorted(visited, reverse=True)


@given(st.lists(st.integers(1, CELLS - 1), max_size=40))
def test_corrections_keep_schedules_increasing(inner: list[int]) -> None:
    schedule = [0, *sorted(inner), CELLS]
    distinct = make_distinct(schedule)
    assert distinct[0] == 0 and distinct[-1] == CELLS and all(a < b for a, b in itertools.pairwise(distinct))
    apart = spread(distinct)
    assert apart[0] == 0 and apart[-1] == CELLS and all(b - a >= 2 for a, b in itertools.pairwise(apart))
    if all(b - a >= 2 for a, b in itertools.pairwise(schedule)):
        assert spread(make_distinct(schedule)) == schedule


def learn(chain: MarkovDenoiser, **options: Any) -> tuple[LSDScheduler, list[dict[str, Any]]]:
    records: list[dict[str, Any]] = []
    pipe = MaskedDiffusionPipeline(chain, LSDScheduler(**chain.scheduler_config()))
    config = DistillConfig(**{"method": "jys", "num_sequences": 16, **options})
    return distill(pipe, config, log=records.append), records


def test_schedules_are_nested_and_beat_the_uniform_grid() -> None:
    chain = countdown(16, 64)
    scheduler, _ = learn(chain, nfe=(1, 2, 4, 8))
    plain = LSDScheduler(**chain.scheduler_config())
    finer = scheduler.steps_for(8)
    for M in (1, 2, 4, 8):
        steps = scheduler.steps_for(M)
        assert torch.equal(steps.timesteps, finer.timesteps[:: 8 // M])
        assert float(steps.timesteps[0]) == 1 and float(steps.timesteps[-1]) == pytest.approx(1e-4)
        assert bool((steps.score_coefficients == 1).all()) and bool((steps.log_score_coefficients == 1).all())
    for M in (4, 8):
        errors = []
        for sampler in (scheduler, plain):
            pipe = MaskedDiffusionPipeline(chain, sampler)
            pipe.set_progress_bar_config(disable=True)
            generator = torch.Generator().manual_seed(7)
            x = pipe(num_samples=512, num_inference_steps=M, generator=generator, output_type="ids").sequences
            errors.append(reverse_kl_per_transition(x, chain.transition))
        assert errors[0] < 0.75 * errors[1]


def test_the_first_split_is_where_klub_is_largest() -> None:
    """Against a fine grid of points, evaluated by the same recorder on the same paths."""
    chain = random_chain(4, 24, seed=3)
    chain.time_conditioned = True
    options = {"nfe": (2,), "count": "bernoulli", "teacher_steps": 24, "num_sequences": 64}
    scheduler, _ = learn(chain, **options)
    split = float(scheduler.steps_for(2).timesteps[1])
    pipe = MaskedDiffusionPipeline(chain, LSDScheduler(**chain.scheduler_config()))
    runs = PipelineRuns(pipe, 0, {})
    teacher, recorder = (kind(**chain.scheduler_config(), count="bernoulli") for kind in (PathRecorder, KLUBRecorder))
    runs.run(teacher, 24, range(64))
    points = [split, *torch.linspace(0.95, 0.05, 19).tolist()]
    points.sort(reverse=True)
    recorder.follow([Visit(1.0, True), *(Visit(t, False, 1e-4) for t in points)])
    recorder.noise_from(teacher.paths)
    runs.run(recorder, 21, range(64))
    klub = dict(zip(points, recorder.sums[1:].tolist(), strict=True))
    assert klub[split] >= max(klub.values()) * 0.99
    assert min(klub.values()) < 0.5 * max(klub.values())  # so the test can tell


def test_numbers_do_not_depend_on_the_batch_size() -> None:
    whole, batches = (learn(countdown(8, 32), nfe=(4,), batch_size=size)[0].steps_for(4) for size in (16, 5))
    assert torch.equal(whole.timesteps, batches.timesteps)


def test_cost_is_counted_and_bounded() -> None:
    """A time-conditioned network is called at every visit: three points in one run, then one at a time, per level."""
    chain = random_chain(4, 8)
    chain.time_conditioned = True
    calls: list[int] = []
    chain.register_forward_pre_hook(lambda *_: calls.append(0))
    options = {"nfe": (4,), "teacher_steps": 8, "num_sequences": 6, "batch_size": 3}
    _, records = learn(chain, **options)
    plan = TeacherPlan(num_masked=8, num_canvases=1, num_steps=8, mask_token_id=4)
    bound = network_calls(DistillConfig(method="jys", **options).resolve(plan))
    assert bound == 1 + 2 * (8 + 68 * 3)
    assert records[-1]["network_calls"] == len(calls) <= bound
    assert len(calls) >= 1 + 2 * (8 + (4 + 2 * 15) + 2 * (4 + 2 * 10))


@pytest.mark.parametrize("nfe", [(3,), (4, 12), (1024,)])
def test_only_powers_of_two(nfe: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="`nfe` must be powers of two"):
        DistillConfig(method="jys", nfe=nfe)
