"""lsd: its coefficients are the minima that they should be."""

import math

import pytest
import torch
from helpers.small_distillations import Scored, learn, pipeline_of, seen_by

from lsd_sampler import DistillConfig, LSDScheduler, distill
from lsd_sampler.denoisers import MarkovDenoiser, random_chain
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
