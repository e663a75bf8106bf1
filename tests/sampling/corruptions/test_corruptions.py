"""Corruption processes: their own laws, the official numbers, and error messages."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from helpers.golden_files import fixture_path
from helpers.goodness_of_fit import p_value
from safetensors.torch import load_file
from scipy.linalg import expm

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.corruptions import Absorbing, Corruption, Gaussian, Uniform
from lsd_sampler.sampling.noise import make_noise_schedule
from lsd_sampler.sampling.solvers import SOLVERS


FALSE_ALARM = 1e-4  # of each test of a law; fixed seeds
NUM_SAMPLES = 20_000
V, L = 3, 2
STATES = list(itertools.product(range(V), repeat=L))
CORRUPTIONS = [Absorbing(2, 3), Uniform(3), Gaussian(6, 2.0, 3.0), Gaussian(5, 2.0, 3.0)]


def name_of(x: Any) -> str:
    return f"{x.name}{x.num_states}" if isinstance(x, Corruption) else str(x)


def generator_matrix(corruption: Corruption) -> np.ndarray:
    """Q, from the law after very little noise."""
    law = corruption.forward_law(torch.arange(corruption.num_states), 1e-6).numpy()  # type: ignore[attr-defined]
    return (law - np.eye(len(law))) / 1e-6


def discretised_gaussian(num_states: int, middle: float, q_sigma: float) -> torch.Tensor:
    """Probabilities of the levels 1 to S."""
    level = torch.arange(1, num_states + 1).double()
    return (-((level - middle) ** 2) / (2 * q_sigma**2)).softmax(0)


# ---- the processes themselves ----


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=name_of)
def test_noise_adds_up_and_ends_in_its_stationary_law(corruption: Any) -> None:
    x = torch.arange(corruption.num_states)
    parts = [corruption.forward_law(x, total) for total in (0.3, 0.5, 0.8)]
    torch.testing.assert_close(parts[0] @ parts[1], parts[2], rtol=0, atol=1e-7)
    torch.testing.assert_close(corruption.forward_law(x, 0.0), torch.eye(len(x)).double(), rtol=0, atol=1e-7)
    end = corruption.prior()
    if corruption.name == "gaussian":  # `prior` rounds the middle of an odd number of levels
        end = discretised_gaussian(len(x), len(x) / 2, 3.0)
    torch.testing.assert_close(corruption.forward_law(x, 60.0), end.expand(len(x), -1), rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.from_numpy(expm(0.8 * generator_matrix(corruption))), parts[2], rtol=0, atol=1e-5)


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=name_of)
def test_draws_follow_the_law(corruption: Any) -> None:
    """`corrupt` and `sample_prior`."""
    generator = torch.Generator().manual_seed(0)
    for start in range(corruption.num_states):
        x = torch.full((2, NUM_SAMPLES), start)
        for row, total in zip(corruption.corrupt(x, torch.tensor([0.2, 1.5]), generator), (0.2, 1.5), strict=True):
            counts = torch.bincount(row, minlength=corruption.num_states).numpy()
            assert p_value(counts, corruption.forward_law(x[:1, :1].flatten(), total)[0].numpy()) > FALSE_ALARM
    drawn = corruption.sample_prior(2, NUM_SAMPLES, generator, "cpu")
    assert p_value(
        torch.bincount(drawn.flatten(), minlength=corruption.num_states).numpy(), corruption.prior().numpy()
    ) > (FALSE_ALARM)


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=name_of)
def test_the_way_back_is_bayes_rule(corruption: Any) -> None:
    """Of one token: with the exact posterior of x0, `posterior` and `score` are those of the noised data law, and the
    reverse rates are the posterior's derivative.
    """
    num = corruption.num_states
    prior = torch.rand(num, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    if corruption.absorbing:
        prior[corruption.mask_token_id] = 0  # data has no masks
    prior /= prior.sum()
    x = torch.arange(num)
    late, early, between = (corruption.forward_law(x, total) for total in (1.1, 0.4, 0.7))
    noised = prior @ late
    clean = (prior[:, None] * late / noised).T  # p(x0 | x)
    back = ((prior @ early)[:, None] * between / noised).T  # p(x at less noise | x)
    torch.testing.assert_close(corruption.posterior(clean, x, 1.1, 0.4, "logits"), back, rtol=1e-5, atol=1e-7)
    score = corruption.score(clean, x, 1.1, "logits")
    rows = slice(None) if not corruption.absorbing else slice(corruption.mask_token_id, None)
    # a gaussian score is made of probabilities in float32
    atol = 1e-6 if corruption.name == "gaussian" else 1e-7
    torch.testing.assert_close(score[rows], (noised[None] / noised[:, None])[rows], rtol=1e-5, atol=atol)
    again = corruption.score(score, x, 1.1, "log_score")
    torch.testing.assert_close(again, score)
    step = 1e-5
    derivative = corruption.posterior(clean, x, 1.1, 1.1 - step, "logits") / step
    rates = corruption.reverse_rates(score, x)
    off = ~torch.eye(num, dtype=torch.bool)
    torch.testing.assert_close(derivative[off], rates[off], rtol=1e-3, atol=1e-4)
    assert not rates[~off].any()


# ---- official numbers ----


@pytest.mark.parametrize("key", ["euler_probs", "analytic_probs", "denoise_probs"])
@pytest.mark.parametrize("case", range(3))
@pytest.mark.parametrize("noise_name", ["loglinear", "geometric"])
@pytest.mark.parametrize("graph", ["absorb", "uniform"])
def test_official_sedd_steps(graph: str, noise_name: str, case: int, key: str) -> None:
    """Every row, own entries and negative ones included: nothing is clamped there, and nothing here."""
    golden = load_file(fixture_path("transitions", "sedd.safetensors"))
    low, high = golden["geometric.sigma_min_max"].double().tolist()
    schedule = {"loglinear": "log_linear"}.get(noise_name, noise_name)
    noise = make_noise_schedule(schedule, sigma_min=low, sigma_max=high)
    dim = int(golden["dim"])
    corruption: Corruption = Absorbing(dim, dim + 1) if graph == "absorb" else Uniform(dim)
    part = {name: golden[f"{graph}.{noise_name}.case{case}.{name}"].double() for name in ("t", "dt", "score", key)}
    for t, score, x, expected in zip(
        part["t"].tolist(), part["score"], golden[f"{graph}.x_t"], part[key], strict=True
    ):
        s = t - float(part["dt"])
        if key == "denoise_probs":
            ours = corruption.posterior(score, x, float(noise.total(t)), 0.0, "log_score")[:, : expected.shape[1]]
            small = float(noise.total(t))
        else:
            solver = SOLVERS["euler" if key == "euler_probs" else "tweedie"]
            ours = solver.law(corruption, noise, score, x, t, s, "log_score")
            small = float(noise.total(t) - noise.total(s))
        # the official float32 code loses digits near t = 1, and where the step is small in 1 - e^-ds and 1 - e^ds,
        # which are multiplied: up to three roundings each
        rtol = (1e-4 if t > 0.9 else 1e-5) + 6 * torch.finfo(torch.float32).eps / small
        torch.testing.assert_close(ours, expected, rtol=rtol, atol=2e-6)


# ---- mistakes ----


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"corruption": "uniform"}, "needs `vocab_size`"),
        ({"corruption": "uniform", "vocab_size": 5, "mask_token_id": 5}, "has no `mask_token_id`"),
        ({"corruption": "uniform", "vocab_size": 5, "order": "halton"}, "`order` 'halton' is for absorbing noise"),
        ({"corruption": "gaussian", "vocab_size": 5, "rate_sigma": 0.0}, "`rate_sigma` and `q_sigma` must be > 0"),
        ({"corruption": "gaussian", "vocab_size": 256, "q_sigma": 1.0}, "`q_sigma` must be larger for 256 states"),
        (
            {"corruption": "gaussian", "vocab_size": 5, "solver": "euler", "prediction_type": "log_score"},
            "`prediction_type` 'log_score' cannot be used under gaussian noise",
        ),
        ({"corruption": "unifrom"}, "Did you mean 'uniform'?"),
    ],
)
def test_bad_configs(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        LSDScheduler(**config)


def test_a_pipeline_with_masks_does_not_take_a_sampler_without() -> None:
    scheduler = LSDScheduler(corruption="uniform", vocab_size=3)
    scheduler.set_timesteps(2)
    with pytest.raises(ValueError, match="process masks tokens, the scheduler's does not"):
        scheduler.step(torch.zeros(1, 4, 3), 0, torch.zeros(1, 4, dtype=torch.long), mask_token_id=7)
