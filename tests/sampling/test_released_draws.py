"""Draws as in released code: their weights against the release, their law against numerical integration."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.golden_files import fixture_path
from safetensors.torch import load_file

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
from lsd_sampler.sampling.released_draws import DRAWS, draw_as_released, move_weights
from lsd_sampler.sampling.solvers import SOLVERS


def integrated_law(weights: np.ndarray, eps: float, points: int = 4000) -> np.ndarray:
    """Probability of each weight to win the race: `int w f(w r) prod_others S(w' r) dr`, over r = E / w.

    f and S are density and survival function of `E = eps - log(eps + (1 - eps) u)` for a real uniform u.
    """
    low, high = np.log(eps / weights.max()), np.log((eps - np.log(eps)) / weights.min())
    r = np.exp(np.linspace(low, high, points))

    def survival(e: np.ndarray) -> np.ndarray:
        return np.clip((np.exp(np.minimum(eps - e, 0)) - eps) / (1 - eps), 0, 1)

    log_all = np.zeros(points)
    for part in np.array_split(weights, max(1, len(weights) // 1000)):
        log_all += np.log(np.maximum(survival(part[:, None] * r), 1e-300)).sum(0)
    law = np.empty(len(weights))
    for index in np.array_split(np.arange(len(weights)), max(1, len(weights) // 1000)):
        e = weights[index, None] * r
        density = np.where((e > eps) & (e < eps - np.log(eps)), np.exp(eps - e) / (1 - eps), 0)
        others = np.exp(log_all - np.log(np.maximum(survival(e), 1e-300)))
        law[index] = np.trapezoid(density * others * e, np.log(r), axis=1)
    return law / law.sum()


def zipf_step(vocab: int, steps: int) -> np.ndarray:
    """Weights of the tokens of a Zipf law with exponent 1.1, and of the mask, in a step that should reveal 1/steps."""
    p = np.arange(1, vocab + 1) ** -1.1
    return np.append(p / p.sum() / steps, 1 - 1 / steps)


def reveal_ratio_and_entropy(law: np.ndarray, steps: int) -> tuple[float, float]:
    revealed = law[:-1].sum()
    p = law[:-1] / revealed
    return float(revealed * steps), float(-(p * np.log(np.maximum(p, 1e-300))).sum())


@pytest.mark.parametrize(("steps", "ratio", "entropy"), [(8, 0.88, 5.50), (1024, 0.53, 3.30)])
def test_the_hidden_temperature_of_a_vocabulary_of_gpt2(steps: int, ratio: float, entropy: float) -> None:
    """The numbers in the module's documentation."""
    got = reveal_ratio_and_entropy(integrated_law(zipf_step(50_257, steps), 1e-6, points=400), steps)
    assert got == pytest.approx((ratio, entropy), abs=0.006)


@pytest.mark.parametrize(("steps", "eps"), [(128, 1e-6), (8, 1e-4)])
def test_released_draws_follow_the_integrated_law(steps: int, eps: float) -> None:
    """Shares of the mask and of groups of tokens, within 5 standard errors: false alarms below 1e-5."""
    weights, rows = zipf_step(2000, steps), 40_000
    law = integrated_law(weights, eps)
    assert reveal_ratio_and_entropy(law, steps)[0] < 0.95  # so the test can tell
    generator, counts = torch.Generator().manual_seed(0), np.zeros(2001)
    for _ in range(4):
        drawn = draw_as_released(torch.tensor(weights).float().expand(rows // 4, -1), eps, generator)
        counts += np.bincount(drawn, minlength=2001)
    for group in (slice(0, 1), slice(1, 10), slice(10, 100), slice(100, 2000), slice(2000, 2001)):
        p, share = law[group].sum(), counts[group].sum() / rows
        assert abs(share - p) < 5 * np.sqrt(p * (1 - p) / rows)


@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize("solver", ["euler", "tweedie"])
@pytest.mark.parametrize("phi", ["0.8", "1.0", "1.15"])
def test_weights_are_those_of_the_release(case: int, solver: str, phi: str) -> None:
    """Its coefficient multiplies the log-score; `xt_prob` is what it draws from."""
    fixture = load_file(fixture_path("transitions", "lsd_jys.safetensors"))
    x_BL, log_score_BLV = fixture["x_t"], fixture[f"case{case}.log_score"]
    times, dt, mask = fixture[f"case{case}.t"].double(), fixture[f"case{case}.dt"].double(), 6
    scheduler = LSDScheduler(mask_token_id=mask, prediction_type="log_score", solver=solver)
    solve = SOLVERS[solver].score_weight
    for b in range(2):
        masked_L = x_BL[b] == mask
        amount = float(solve(scheduler.noise, times[b], times[b] - dt))
        moves = move_weights(log_score_BLV[b, masked_L, :mask], "log_score", amount, float(phi))
        ours = torch.cat([moves, 1 - moves.sum(-1, keepdim=True)], dim=1)
        theirs = fixture[f"case{case}.phi{phi}.{solver}.xt_prob"][b, masked_L]
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_a_step_draws_from_those_weights() -> None:
    """Reveals and tokens of one step with learned coefficients, against the integrated law, within 5 standard errors
    (false alarms below 1e-4), for both kinds of prediction.
    """
    times = torch.tensor([0.9, 0.5, 1e-3], dtype=torch.float64)
    numbers = LearnedSteps(times, torch.tensor([0.8, 1.0]).double(), torch.tensor([1.2, 1.0]).double())
    for kind in ("logits", "log_score"):
        scheduler = released_scheduler(prediction_type=kind)
        scheduler.set_learned_sampler(LearnedSampler({2: numbers}))
        scheduler.set_timesteps(2)
        logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05, 9.0]))  # the last column is the mask's
        odds = float(scheduler.noise.alpha(0.9) / scheduler.noise.masked(0.9))
        output = (logits + (0 if kind == "logits" else np.log(odds))).expand(40, 500, 5)
        moves = move_weights(output[0, :1, :4], kind, *amounts(scheduler, kind), 1.2)[0].double().numpy()
        sample = torch.full((40, 500), 4)
        out = scheduler.step(output, 0, sample, generator=torch.Generator().manual_seed(3))
        shares = torch.bincount(out.prev_sample.flatten(), minlength=5).numpy() / sample.numel()
        law = integrated_law(np.append(moves, 1 - moves.sum()), 1e-6)
        assert np.abs(shares - law).max() < 5 * np.sqrt(0.25 / sample.numel())
        assert 0.05 < law[:4].sum() < 0.9
        assert torch.equal(out.sampled_probs > 0, out.prev_sample != 4)
        last = scheduler.step(output, 1, out.prev_sample, generator=torch.Generator().manual_seed(4)).prev_sample
        assert bool((last < 4).all())
        assert torch.equal(last[out.prev_sample < 4], out.prev_sample[out.prev_sample < 4])


def released_scheduler(**options: Any) -> LSDScheduler:
    return LSDScheduler(**{"mask_token_id": 4, "count": "bernoulli", "draws": "float32_eps1e-6", **options})


def amounts(scheduler: LSDScheduler, kind: str) -> tuple[float]:
    """The solver's factor in the first step, coefficient included."""
    t, s = scheduler.steps.timesteps[:2]
    solver, phi = scheduler.plan.solver, scheduler.steps.score_coefficients[0]
    amount = solver.score_weight if kind == "log_score" else solver.reveal_probability
    return (float(phi * amount(scheduler.noise, t, s)),)


def test_a_row_depends_on_its_own_generator() -> None:
    logits = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(0))

    def run(rows: list[int]) -> torch.Tensor:
        scheduler, sample = released_scheduler(), torch.full((len(rows), 6), 4)
        scheduler.set_timesteps(3)
        generators = [torch.Generator().manual_seed(10 + row) for row in rows]
        for t in scheduler.timesteps:
            sample = scheduler.step(logits[rows], t, sample, generator=generators).prev_sample
        return sample

    assert torch.equal(run([0, 1, 2])[1:], run([1, 2]))


@pytest.mark.parametrize(
    "options",
    [{"count": "exact"}, {"order": "halton"}, {"order": "confidence"}, {"solver": "dndm"}, {"draws": "float32"}],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="`draws`"):
        released_scheduler(**options)


def test_no_temperature() -> None:
    scheduler = released_scheduler()
    scheduler.set_timesteps(2)
    with pytest.raises(ValueError, match="`temperature`"):
        scheduler.step(torch.zeros(1, 3, 5), 0, torch.full((1, 3), 4), temperature=0.5)


def test_draws_are_kept_with_the_sampler_and_can_be_chosen_when_it_is_loaded(tmp_path: Path) -> None:
    steps = LearnedSteps.plain(torch.tensor([1.0, 0.5, 1e-4], dtype=torch.float64))
    for draws in DRAWS:
        scheduler = released_scheduler(draws=draws)
        scheduler.set_learned_sampler(LearnedSampler({2: steps}))
        scheduler.save_pretrained(tmp_path / draws)
        assert LSDScheduler.from_pretrained(tmp_path / draws).config.draws == draws
    loaded = LSDScheduler.from_pretrained(tmp_path / "exact", draws="float32_eps1e-10")
    assert loaded.config.draws == "float32_eps1e-10" and loaded.available_num_inference_steps == [2]
