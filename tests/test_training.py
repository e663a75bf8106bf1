"""Distillation: step-error table against enumeration, exact replay, minima of the coefficients, what is refused."""

import dataclasses
import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill
from lsd_sampler.denoisers import MarkovDenoiser, RADDDenoiser, countdown, random_chain
from lsd_sampler.evaluation import forbidden_share, reverse_kl_per_transition
from lsd_sampler.noise import Geometric
from lsd_sampler.orders import ORDERS
from lsd_sampler.training import METHODS
from lsd_sampler.training.config import NETWORK_CALLS
from lsd_sampler.training.lsd import Comparison, _Adam
from lsd_sampler.training.path_kl import isotonic_decreasing
from lsd_sampler.training.recording import PipelineRuns, Recorder, StepErrorRecorder, TeacherRecorder


def pipeline_of(denoiser: torch.nn.Module, **scheduler: Any) -> MaskedDiffusionPipeline:
    return MaskedDiffusionPipeline(denoiser, LSDScheduler(**{**denoiser.scheduler_config(), **scheduler}))  # type: ignore[operator]


def seen_by(denoiser: torch.nn.Module) -> list[torch.Tensor]:
    """The canvases that the network is called with, from now on."""
    canvases: list[torch.Tensor] = []
    denoiser.register_forward_pre_hook(lambda _, args: canvases.append(args[0].clone()))
    return canvases


def learn(denoiser: torch.nn.Module, call: dict[str, Any] | None = None, **options: Any) -> LSDScheduler:
    return distill(pipeline_of(denoiser), DistillConfig(**options), **(call or {}))


def samples(
    denoiser: MarkovDenoiser, scheduler: LSDScheduler, steps: int, num: int = 1024, seed: int = 123
) -> torch.Tensor:
    pipe = MaskedDiffusionPipeline(denoiser, scheduler)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(seed)
    return pipe(num_samples=num, num_inference_steps=steps, generator=generator, output_type="ids").sequences


# ---- path_kl: the table ----


def orders_of_revealing(order: str, length: int) -> list[tuple[int, ...]]:
    """Permutations (rank -> position), each as often as it is likely."""
    if order == "random":
        return list(itertools.permutations(range(length)))
    # shifts at the centres of cells finer than any at which the order changes
    shifts = (torch.arange(256, dtype=torch.float64) + 0.5) / 256
    keys = ORDERS[order].keys(torch.zeros(256, length), torch.stack([shifts, shifts], dim=1), (length,))
    return [tuple(row) for row in keys.argsort(dim=1).tolist()]


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


def test_isotonic_is_the_weighted_projection() -> None:
    values = torch.tensor([3.0, 1.0, 2.0, 2.5, 0.0, 0.5], dtype=torch.float64)
    weights = torch.tensor([1.0, 1.0, 3.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    fitted = isotonic_decreasing(values, weights)
    pooled = (1.0 * 1 + 2.0 * 3 + 2.5 * 2) / 6
    torch.testing.assert_close(fitted, torch.tensor([3.0, pooled, pooled, pooled, 0.25, 0.25], dtype=torch.float64))


@pytest.mark.parametrize("order", ["halton", "random"])
@pytest.mark.parametrize("num_states", [128, 6])
def test_replay_sees_the_canvases_of_the_teacher(order: str, num_states: int) -> None:
    chain, after = countdown(8, 16), []
    canvases = seen_by(chain)

    def keep(pipe: Any, step: int, t: Any, tensors: dict[str, torch.Tensor]) -> None:
        after.append(tensors["sample"])

    call = {"callback_on_step_end": keep}
    scheduler = learn(chain, call, order=order, nfe=(2,), num_sequences=5, num_states=num_states)
    states = scheduler.learned_sampler.step_error.grid.tolist()
    teacher, replay = canvases[1:17], canvases[17:]  # the first call counts the masked positions
    assert len(replay) == len(states) == min(num_states, 16) + (num_states < 16) * (len(states) - num_states)
    known = [(canvas != chain.mask_token_id).sum(1).tolist() for canvas in teacher]
    assert known == [[s] * 5 for s in range(16)]
    for s, canvas in zip(states, replay, strict=True):
        assert torch.equal(canvas, teacher[s])
    assert torch.equal(after[-1], after[16])
    assert not (after[-1] == chain.mask_token_id).any()


def test_replay_is_exact_for_bernoulli_counts_and_image_canvases() -> None:
    """The replay reveals by rank what the teacher ended with, however the teacher counted, on any shape of canvas."""
    noise = {"mask_token_id": 5, "vocab_size": 5, "order": "halton", "count": "bernoulli"}
    teacher, recorder = TeacherRecorder(**noise), StepErrorRecorder(**noise)
    logits = torch.randn(3, 5, 4, 6)

    def generate(scheduler: Recorder, steps: int) -> torch.Tensor:
        scheduler.begin(steps)
        scheduler.set_timesteps(steps)
        sample = torch.full((3, 4, 6), 5)
        generators = [torch.Generator().manual_seed(i) for i in range(3)]
        for t in scheduler.timesteps:
            sample = scheduler.step(logits, t, sample, generator=generators).prev_sample
        return sample

    final = generate(teacher, 7)
    recorder.replay(torch.tensor([0, 3, 11]), teacher.canvases, 24)
    assert torch.equal(generate(recorder, 3), final)
    assert recorder.seen_GL.sum(1).tolist() == [3 * 24, 3 * 21, 3 * 13]


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
        config = DistillConfig(order=order, nfe=(4, 8, 16), num_sequences=64)
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


# ---- the pipeline is left as it was ----


class Scored(MarkovDenoiser):
    """A chain whose prediction is off by a factor that depends on the canvas: raw logits, or an unnormalised score."""

    def __init__(self, chain: MarkovDenoiser, kind: str):
        super().__init__(chain.transition, chain.initial, chain.length)
        self.prediction_type = kind
        self.noise = Geometric(0.1, 3.0)
        self.time_conditioned = True  # so that raw logits too are asked for at every step, for all sequences

    @torch.no_grad()
    def forward(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(tokens) + self.log_factor(tokens)[:, None, None]

    def log_factor(self, tokens: torch.Tensor) -> torch.Tensor:
        known = (tokens != self.mask_token_id).sum(1).double()
        return torch.log((1 + known) / (1 + self.length - known))


RADD: dict[str, Any] = {
    "tokens": 5,
    "model": {"type": "ddit_wot", "hidden_size": 8, "n_heads": 2, "n_blocks": 1, "length": 12, "dropout": 0.1},
}


@pytest.mark.parametrize("options", [{}, {"method": "lsd"}, {"method": "lsd", "optimizer": "adam", "epochs": 2}])
def test_network_and_pipeline_are_left_as_they_were(options: dict[str, Any]) -> None:
    denoiser = RADDDenoiser(RADD).eval()
    pipe = pipeline_of(denoiser)
    pipe.set_progress_bar_config(desc="mine", disable=True)
    scheduler, config = pipe.scheduler, dict(pipe.config)
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    learned = distill(pipe, DistillConfig(nfe=(2, 4), num_sequences=4, teacher_steps=12, **options))
    assert all(torch.equal(value, before[name]) for name, value in denoiser.state_dict().items())
    assert all(parameter.grad is None for parameter in denoiser.parameters())
    assert not denoiser.training
    assert pipe.scheduler is scheduler and learned is not scheduler
    assert dict(pipe.config) == config
    assert pipe._progress_bar_config == {"desc": "mine", "disable": True}
    assert learned.config.mask_token_id == 5
    assert not (pipe(num_samples=2, num_inference_steps=3, output_type="ids").sequences == 5).any()


@pytest.mark.parametrize("call", [0, 3, 20])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_pipeline_is_restored_when_the_network_raises(call: int, error: type[BaseException]) -> None:
    chain = countdown(8, 16)
    pipe = pipeline_of(chain)
    pipe.set_progress_bar_config(desc="mine", disable=True)
    scheduler, calls = pipe.scheduler, itertools.count()

    def fail(*_: Any) -> None:
        if next(calls) == call:
            raise error("the network broke")

    hook = chain.register_forward_pre_hook(fail)
    with pytest.raises(error, match="the network broke"):
        distill(pipe, DistillConfig(nfe=(4,), num_sequences=2))
    assert pipe.scheduler is scheduler
    assert pipe._progress_bar_config == {"desc": "mine", "disable": True}
    hook.remove()
    assert distill(pipe, DistillConfig(nfe=(4,), num_sequences=2)).learned_sampler


def test_what_the_base_samplers_config_says_is_kept() -> None:
    chain = countdown(8, 16)
    pipe = pipeline_of(chain, noise_eps=0.01, sampling_eps=1e-3, order="confidence")
    learned = distill(pipe, DistillConfig(nfe=(4,), num_sequences=2, solver="euler"))
    assert learned.config.noise_eps == 0.01 and learned.config.sampling_eps == 1e-3
    assert (learned.config.solver, learned.config.order, learned.config.count) == ("euler", "halton", "exact")
    assert float(learned.steps_for(4).timesteps[-1]) == 1e-3


# ---- lsd ----


@pytest.mark.parametrize("domain", ["score", "log_score"])
@pytest.mark.parametrize("count", ["exact", "bernoulli"])
@pytest.mark.parametrize("kind", ["logits", "log_score"])
def test_coefficients_are_one_where_teacher_and_student_coincide(domain: str, count: str, kind: str) -> None:
    denoiser = Scored(random_chain(4, 12), kind)
    options = {"method": "lsd", "domain": domain, "count": count, "nfe": (6,), "teacher_steps": 6}
    steps = learn(denoiser, num_sequences=8, **options).learned_sampler.steps[6]
    ones = torch.ones(6, dtype=torch.float64)
    assert torch.equal(steps.score_coefficients, ones)
    assert torch.equal(steps.log_score_coefficients, ones)


def test_score_coefficients_of_a_normalised_denoiser_are_one() -> None:
    """Whatever constants its raw logits have: its scores have the same sum on every canvas."""
    options = {"method": "lsd", "domain": "score", "solver": "euler", "nfe": (3, 6), "teacher_steps": 48}
    learned = learn(Scored(random_chain(4, 12), "logits"), num_sequences=8, **options).learned_sampler
    for steps in learned.steps.values():
        assert bool((steps.score_coefficients == 1).all()) and bool((steps.log_score_coefficients == 1).all())


@pytest.mark.parametrize("count", ["exact", "bernoulli"])
def test_score_coefficients_are_the_ratio_of_total_scores(count: str) -> None:
    """Euler's big steps lag behind the teacher's under this noise; the ratio is recomputed from the canvases."""
    denoiser, num, M = Scored(random_chain(4, 12), "log_score"), 16, 4
    canvases = seen_by(denoiser)
    options = {"method": "lsd", "solver": "euler", "count": count, "nfe": (M,), "teacher_steps": 48}
    learned = learn(denoiser, num_sequences=num, batch_size=num, **options).learned_sampler
    expected = []
    for canvas in canvases[-M:]:  # both halves in one call
        teacher, student = canvas[:num], canvas[num:]
        both = ((teacher == denoiser.mask_token_id) & (student == denoiser.mask_token_id)).sum(1)
        sums = [float((both * denoiser.log_factor(half).exp()).sum()) for half in (teacher, student)]
        expected.append(sums[0] / sums[1] if sums[1] else 1)
    assert learned.steps[M].score_coefficients.tolist() == pytest.approx(expected, rel=1e-9)
    assert expected[0] == 1 and max(abs(math.log(ratio)) for ratio in expected) > 0.2
    assert bool((learned.steps[M].log_score_coefficients == 1).all())


def test_the_students_half_of_the_run_is_the_learned_sampler() -> None:
    """What the student saw while it was solved is what the result does: a coefficient is used in its own step."""
    denoiser, num, M = Scored(random_chain(4, 12), "log_score"), 8, 5
    canvases = seen_by(denoiser)
    scheduler = learn(denoiser, method="lsd", solver="euler", nfe=(M,), teacher_steps=48, num_sequences=num)
    during = [canvas[num:] for canvas in canvases[-M:]]
    canvases.clear()
    pipe = MaskedDiffusionPipeline(denoiser, scheduler)
    generators = PipelineRuns(pipe, 0, {}).generators(range(num))
    pipe(num_samples=num, num_inference_steps=M, generator=generators, output_type="ids")
    assert all(torch.equal(a, b) for a, b in zip(during, canvases, strict=True))


@pytest.fixture
def comparison() -> Comparison:
    """Two predictions that differ, with a mask column that is to be ignored, in float64."""
    generator = torch.Generator().manual_seed(3)
    teacher, student = (torch.randn(4, 6, 8, generator=generator, dtype=torch.float64) * 2 for _ in range(2))
    student = 0.7 * teacher + 0.5 * student
    teacher[:, :, 7], student[:, :, 7] = 40.0, 55.0
    student[0, 0, 1] = teacher[0, 0, 1] = -torch.inf
    row_R, position_R = (torch.rand(4, 6, generator=generator) < 0.7).nonzero(as_tuple=True)
    return Comparison(teacher, student, row_R, position_R, excluded=7)


def test_what_the_student_cannot_say_does_not_flatten_the_rest() -> None:
    """Only its possible tokens are scaled when it samples, so only they are compared."""
    possible = torch.tensor([0.0, -1.0, -2.0], dtype=torch.float64)
    student = torch.cat([possible, torch.tensor([-torch.inf])])[None, None]
    teacher = torch.cat([2 * possible, torch.tensor([1.0])])[None, None]
    first = torch.zeros(1, dtype=torch.long)
    comparison = Comparison(teacher, student, first, first, excluded=None)
    assert comparison.best_beta() == pytest.approx(2.0, abs=1e-6)


def test_distilling_at_another_temperature_is_refused() -> None:
    with pytest.raises(ValueError, match="`temperature` 1"):
        learn(countdown(4, 8), {"temperature": 0.5}, nfe=(2,))


def test_single_precision_changes_coefficients_by_rounding_only(comparison: Comparison) -> None:
    single = dataclasses.replace(
        comparison, teacher_BLV=comparison.teacher_BLV.float(), student_BLV=comparison.student_BLV.float()
    )
    assert single.best_beta() == pytest.approx(comparison.best_beta(), abs=1e-5)
    assert single.log_score_sums() == pytest.approx(comparison.log_score_sums(), rel=1e-5)


def test_newton_finds_the_minimum_of_a_convex_function(comparison: Comparison) -> None:
    beta = comparison.best_beta()
    value, slope, curvature = comparison.log_score_loss(beta)
    assert abs(slope) < 1e-9 and curvature > 0
    grid = np.linspace(0, 4, 401)
    values = np.array([comparison.log_score_loss(float(b))[0] for b in grid])
    assert values.min() >= value - 1e-12
    assert abs(grid[values.argmin()] - beta) <= 0.01
    assert np.diff(values, 2).min() >= -1e-12
    assert abs(beta - 1) > 0.05  # so the test can tell


def test_loss_is_the_divergence_up_to_a_constant(comparison: Comparison) -> None:
    rows = comparison.row_R, comparison.position_R
    p = comparison.teacher_BLV[rows][:, :7].double().softmax(-1)
    student = comparison.student_BLV[rows][:, :7].double()
    p = p.masked_fill(student == -torch.inf, 0)  # no coefficient gives the student what it deems impossible

    def divergence(beta: float) -> float:
        log_q = (beta * student).log_softmax(-1).masked_fill(student == -torch.inf, 0)
        return float((torch.special.xlogy(p, p) - p * log_q).sum(-1).mean())

    constants = [comparison.log_score_loss(beta)[0] - divergence(beta) for beta in (0.3, 1.0, 1.7)]
    assert constants == pytest.approx([constants[0]] * 3, abs=1e-9)
    for beta in (0.3, 1.0, 1.7):
        _, slope, curvature = comparison.log_score_loss(beta)
        h = 1e-4
        low, high = comparison.log_score_loss(beta - h), comparison.log_score_loss(beta + h)
        assert slope == pytest.approx((high[0] - low[0]) / (2 * h), abs=1e-7)
        assert curvature == pytest.approx((high[1] - low[1]) / (2 * h), abs=1e-6)


def test_closed_form_is_the_minimum_of_the_generalised_divergence(comparison: Comparison) -> None:
    rows = comparison.row_R, comparison.position_R
    teacher, student = (x[rows][:, :7].double().exp() for x in (comparison.teacher_BLV, comparison.student_BLV))

    def divergence(phi: float) -> float:
        return float(
            (torch.special.xlogy(teacher, teacher / (phi * student).clamp(min=1e-300)) - teacher + phi * student).sum()
        )

    above, below = comparison.log_score_sums()
    phi = math.exp(above - below)
    assert phi == pytest.approx(float(teacher.sum() / student.sum()), rel=1e-5)
    assert divergence(phi) < min(divergence(phi * 1.01), divergence(phi / 1.01))


@pytest.mark.parametrize("domain", ["score", "log_score"])
@pytest.mark.parametrize("optimizer", ["exact", "adam"])
def test_nothing_to_compare_leaves_the_base_solver(domain: str, optimizer: str) -> None:
    """The only token is known before the last step begins."""
    denoiser = Scored(random_chain(4, 1), "log_score")
    options = {"domain": domain, "optimizer": optimizer, "teacher_steps": 4, "num_sequences": 2, "epochs": 2}
    steps = learn(denoiser, method="lsd", solver="euler", nfe=(4,), **options).steps_for(4)
    assert float(steps.score_coefficients[-1]) == float(steps.log_score_coefficients[-1]) == 1.0


@pytest.mark.parametrize("domain", ["score", "log_score"])
def test_adams_gradient_is_the_derivative_of_the_loss(comparison: Comparison, domain: str) -> None:
    adam = _Adam(domain, 3, 0.1)
    adam.values[1] = 1.4

    def loss(value: float) -> float:
        if domain == "log_score":
            return comparison.log_score_loss(value)[0] * len(comparison.row_R)
        teacher, student = comparison.log_score_sums()
        return value * math.exp(student - teacher) - math.log(value)

    assert adam(1, comparison) == ((1.4, 1.0) if domain == "score" else (1.0, 1.4))
    finite = (loss(1.4 + 1e-5) - loss(1.4 - 1e-5)) / 2e-5
    assert adam.values.grad is not None
    assert float(adam.values.grad[1]) == pytest.approx(finite, abs=1e-7)
    assert adam.values.grad[[0, 2]].tolist() == [0, 0]


@pytest.mark.parametrize("domain", ["score", "log_score"])
def test_adam_reaches_the_closed_form(domain: str) -> None:
    def chain() -> MarkovDenoiser:
        return Scored(random_chain(4, 12), "log_score") if domain == "score" else random_chain(4, 12)

    options = {"method": "lsd", "domain": domain, "solver": "euler", "nfe": (4,), "num_sequences": 24}
    exact = learn(chain(), teacher_steps=48, **options).learned_sampler.steps[4]
    adam = learn(
        chain(), teacher_steps=48, optimizer="adam", learning_rate=0.05, epochs=150, adam_batch_size=64, **options
    )
    name = f"{domain}_coefficients"
    ours, theirs = getattr(exact, name), getattr(adam.learned_sampler.steps[4], name)
    torch.testing.assert_close(theirs, ours, atol=1e-2, rtol=0)
    assert float((ours - 1).abs().max()) > 0.02


def test_the_papers_recipe_reaches_newtons_value() -> None:
    """Adam's defaults: learning rate 1e-3, 20 epochs, 64 sequences, one sequence at a time."""
    options = {"method": "lsd", "nfe": (3,), "teacher_steps": 6}
    exact, adam = (
        learn(random_chain(3, 6), optimizer=optimizer, **options).steps_for(3).log_score_coefficients
        for optimizer in ("exact", "adam")
    )
    torch.testing.assert_close(adam, exact, atol=0.03, rtol=0)
    assert float((exact - 1).abs().max()) > 0.09


def test_lsd_learns_only_the_numbers_it_was_asked_for() -> None:
    scheduler = learn(random_chain(4, 12), method="lsd", nfe=(3, 4), teacher_steps=12, num_sequences=4)
    assert scheduler.available_num_inference_steps == [3, 4]
    with pytest.raises(ValueError, match="num_inference_steps"):
        scheduler.set_timesteps(8)
    plain = LSDScheduler(mask_token_id=4).steps_for(4)
    assert torch.equal(scheduler.steps_for(4).timesteps, plain.timesteps)
    pipe = pipeline_of(random_chain(4, 12))
    first = distill(pipe, DistillConfig(method="lsd", nfe=(4,), teacher_steps=12, num_sequences=4))
    assert torch.equal(first.steps_for(4).log_score_coefficients, scheduler.steps_for(4).log_score_coefficients)


# ---- what it costs ----


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({"nfe": (2, 4), "num_sequences": 6, "batch_size": 4}, 1 + 2 * (16 + 16)),
        ({"nfe": (2, 4), "num_sequences": 4, "teacher_steps": 10}, 1 + 10 + 16),
        ({"nfe": (2,), "num_sequences": 4, "teacher_steps": 20, "count": "bernoulli"}, 1 + 20 + 16),
        ({"method": "lsd", "nfe": (2, 4), "teacher_steps": 20, "num_sequences": 6, "batch_size": 4}, 1 + 32 + 6),
        (
            {
                "method": "lsd",
                "nfe": (2, 4),
                "optimizer": "adam",
                "epochs": 3,
                "num_sequences": 4,
                "adam_batch_size": 2,
            },
            1 + 16 + 3 * 2 * (2 + 4),
        ),
    ],
)
def test_network_calls_are_counted_as_they_happen(options: dict[str, Any], calls: int) -> None:
    chain, records = countdown(4, 16), []
    canvases = seen_by(chain)
    distill(pipeline_of(chain), DistillConfig(**options), log=records.append)
    assert records[-1]["event"] == "done"
    assert records[-1]["network_calls"] == len(canvases) == calls
    json.dumps(records, allow_nan=False)


# ---- options ----


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", "path-kl"),
        ("method", None),
        ("solver", "heun"),
        ("order", "holton"),
        ("order", ""),
        ("order", "confidence"),
        ("count", "poisson"),
        ("domain", "logits"),
        ("optimizer", "sgd"),
        ("nfe", ()),
        ("nfe", 8),
        ("nfe", "8"),
        ("nfe", None),
        ("nfe", (4, 0)),
        ("nfe", (4, -8)),
        ("nfe", (4, 2.5)),
        ("nfe", (4, "8")),
        ("nfe", ([4],)),
        ("nfe", (True,)),
        ("teacher_steps", 0),
        ("teacher_steps", 10.0),
        ("num_sequences", -1),
        ("batch_size", 0),
        ("num_states", "many"),
        ("epochs", 0),
        ("learning_rate", 0),
        ("learning_rate", -1e-3),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("learning_rate", "fast"),
        ("seed", -1),
        ("seed", 1.5),
        ("seed", None),
    ],
)
def test_bad_option_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{name}`"):
        DistillConfig(**{name: value})


def test_config_is_frozen_sorted_and_json() -> None:
    config = DistillConfig(nfe=[16, 4, 4, 8])  # type: ignore[arg-type]
    assert config.nfe == (4, 8, 16)
    assert (config.order, DistillConfig(method="lsd").order) == ("halton", "random")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1  # type: ignore[misc]
    loaded = json.loads(json.dumps(config.to_dict()))
    assert DistillConfig(**loaded) == config
    assert all(field.metadata["help"] for field in dataclasses.fields(DistillConfig))
    assert DistillConfig(seed=2**40).seed == 2**40
    assert set(METHODS.names()) == set(NETWORK_CALLS.names()) == {"path_kl", "lsd", "lsd+", "jys"}


@pytest.mark.parametrize(("num_states", "advice"), [(128, "only 16 tokens"), (5, "num_states")])
def test_more_steps_than_states_is_refused_before_the_work(num_states: int, advice: str) -> None:
    chain = countdown(4, 16)
    canvases = seen_by(chain)
    with pytest.raises(ValueError, match="`nfe` 17") as error:
        distill(pipeline_of(chain), DistillConfig(nfe=(4, 17), num_states=num_states))
    assert advice in str(error.value)
    assert len(canvases) <= 1


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


def test_a_call_that_leaves_nothing_to_do_is_refused() -> None:
    with pytest.raises(ValueError, match="no masked position"):
        learn(countdown(4, 4), {"input_ids": [[3, 2, 1, 0]]}, nfe=(2,))


def test_a_sampler_can_be_distilled_for_a_prompt() -> None:
    """The table covers the positions that the prompt leaves, and its schedules reveal just those."""
    call: dict[str, Any] = {"prefix": [1, 2]}
    learned = learn(random_chain(4, 16), call, nfe=(4,), num_sequences=4)
    assert learned.learned_sampler.step_error is not None
    assert learned.learned_sampler.step_error.seq_len == 14
    out = MaskedDiffusionPipeline(random_chain(4, 16), learned)(
        num_inference_steps=4, num_samples=3, output_type="ids", **call
    )
    assert (out.sequences < 4).all() and (out.sequences[:, :2] == torch.tensor([1, 2])).all()
    learned = learn(random_chain(4, 16), call, method="lsd", nfe=(4,), teacher_steps=16, num_sequences=4)
    assert learned.available_num_inference_steps == [4]


def test_missing_mask_token_is_a_named_error() -> None:
    pipe = pipeline_of(countdown(4, 16))
    pipe.scheduler = LSDScheduler()
    with pytest.raises(ValueError, match="mask_token_id"):
        distill(pipe, DistillConfig(nfe=(4,)))


# ---- acceptance ----


@pytest.mark.slow
def test_acceptance_on_countdown(tmp_path: Any) -> None:
    """The default countdown (V = 32, L = 256), 4,096 samples."""
    from lsd_sampler.cli.train import main

    chain = countdown()
    argv = ["--model", "countdown", "--nfe", "4", "8", "16", "32", "--seed", "0", "--output-dir"]
    assert main([*argv, str(tmp_path / "halton"), "--order", "halton"]) == 0
    assert main([*argv, str(tmp_path / "random"), "--order", "random"]) == 0

    def many(scheduler: LSDScheduler, steps: int) -> torch.Tensor:
        return torch.cat([samples(chain, scheduler, steps, num=512, seed=1000 + batch) for batch in range(8)])

    halton = many(LSDScheduler.from_pretrained(tmp_path / "halton"), 8)
    assert forbidden_share(halton, chain.transition) <= 0.002
    assert reverse_kl_per_transition(halton, chain.transition) <= 0.02
    learned, base = LSDScheduler.from_pretrained(tmp_path / "random"), LSDScheduler(**chain.scheduler_config())
    for steps in (8, 16, 32):
        ours, theirs = (reverse_kl_per_transition(many(s, steps), chain.transition) for s in (learned, base))
        assert ours <= 0.35 * theirs, f"{steps} steps: {ours:.4f} against {theirs:.4f}"
