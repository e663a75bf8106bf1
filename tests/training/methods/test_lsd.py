"""lsd: its coefficients are the minima that they should be."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from helpers.small_distillations import Scored, learn, pipeline_of, seen_by

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill
from lsd_sampler.denoisers import MarkovDenoiser, countdown, random_chain
from lsd_sampler.sampling.pipeline_runs import PipelineRuns
from lsd_sampler.training.methods.lsd import _Adam
from lsd_sampler.training.student_comparison import Comparison


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
