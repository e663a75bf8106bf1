"""One step of other projects' samplers: the numbers that their own code hands to its random draw."""

import pytest
import torch
from conftest import fixture_path
from safetensors.torch import load_file

from lsd_sampler.noise import make_noise_schedule
from lsd_sampler.solvers import SOLVERS


@pytest.mark.parametrize("solver", ["tweedie", "euler"])
@pytest.mark.parametrize("steps", [4, 16])
@pytest.mark.parametrize("name", ["loglinear", "geometric"])
def test_official_radd_rates(name: str, steps: int, solver: str) -> None:
    golden = load_file(fixture_path("transitions", "radd_rates.safetensors"))
    if f"{name}.steps{steps}.{solver}.update_rate" not in golden:
        pytest.skip(f"RADD has no {solver} solver")
    low, high = golden["geometric.sigma_min_max"].double().tolist()
    schedule = {"loglinear": "log_linear"}.get(name, name)
    noise = make_noise_schedule(schedule, noise_eps=1e-3, sigma_min=low, sigma_max=high)
    t = torch.linspace(1, 1e-5, steps + 1, dtype=torch.float64)
    torch.testing.assert_close(t.float(), golden[f"{name}.steps{steps}.timesteps"], rtol=1e-5, atol=1e-6)
    ours = SOLVERS[solver].reveal_probability(noise, t[:-1], t[1:])
    # the official float32 code loses digits in 1 - alpha: at t = 1 (log-linear), and where there is little noise
    rtol = (1e-4 if name == "loglinear" else 1e-5) + 2 * torch.finfo(torch.float32).eps / noise.masked(t[:-1])
    golden_rate = golden[f"{name}.steps{steps}.{solver}.update_rate"].double()
    assert ((ours - golden_rate).abs() <= 1e-6 + rtol * golden_rate).all()


@pytest.mark.parametrize("solver, key", [("euler", "euler_probs"), ("tweedie", "analytic_probs")])
@pytest.mark.parametrize("case", range(3))
@pytest.mark.parametrize("name", ["loglinear", "geometric"])
def test_official_sedd_probabilities(name: str, case: int, solver: str, key: str) -> None:
    golden = load_file(fixture_path("transitions", "sedd.safetensors"))
    low, high = golden["geometric.sigma_min_max"].double().tolist()
    schedule = {"loglinear": "log_linear"}.get(name, name)
    noise = make_noise_schedule(schedule, noise_eps=1e-3, sigma_min=low, sigma_max=high)
    t, dt, score, probs = (golden[f"absorb.{name}.case{case}.{part}"].double() for part in ("t", "dt", "score", key))
    mask = int(golden["dim"])
    at_mask = golden["absorb.x_t"] == mask
    ours = SOLVERS[solver].score_weight(noise, t, t - dt)[:, None, None] * score
    # float32 again: at t = 1, and in 1 - e^-ds where the step is small
    small = float(noise.total(t[0]) - noise.total(t[0] - dt))
    rtol = (1e-4 if name == "loglinear" else 1e-5) + 2 * torch.finfo(torch.float32).eps / small
    torch.testing.assert_close(ours[at_mask][:, :mask], probs[at_mask][:, :mask], rtol=rtol, atol=1e-6)
