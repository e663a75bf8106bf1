"""One step of other projects' samplers: the numbers that their own code hands to its random draw."""

import pytest
import torch
from helpers.golden_files import fixture_path
from safetensors.torch import load_file

from lsd_sampler.sampling.corruptions import Absorbing
from lsd_sampler.sampling.noise import LogLinear, make_noise_schedule
from lsd_sampler.sampling.solvers import SOLVERS


TOLERANCE: dict[str, float] = {"rtol": 1e-5, "atol": 1e-6}
TIME_ITSELF = LogLinear(1e-12)
"""Of samplers that take t for the probability of a mask."""


def probabilities(logits: torch.Tensor, mask: int) -> torch.Tensor:
    return logits.double().masked_fill(torch.arange(logits.shape[-1]) == mask, -torch.inf).softmax(-1)


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


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("solver", ["tweedie", "euler"])
def test_official_radd_weights(solver: str, step: int) -> None:
    """Its outputs are not normalised; the buffer is in half precision."""
    golden = load_file(fixture_path("transitions", "radd_rates.safetensors"))
    weights, p = golden[f"direct.{solver}.weights"][step].double(), golden["direct.model_log_prob"].double().exp()
    times = torch.linspace(1, 1e-5, 5, dtype=torch.float64)
    r = SOLVERS[solver].reveal_probability(LogLinear(1e-3), times[step], times[step + 1])
    mask = p.shape[-1] - 1
    torch.testing.assert_close(r * p[..., :mask], weights[..., :mask], rtol=2e-3, atol=2e-3)
    torch.testing.assert_close((1 - r).expand_as(weights[..., mask]), weights[..., mask], rtol=0, atol=2e-3)


@pytest.mark.parametrize("case", range(3))
def test_official_mdlm_steps(case: int) -> None:
    """Rows of masked positions, `ddpm`, `ddpm_cache` (which takes t for the mask probability), analytic, denoising."""
    golden = load_file(fixture_path("transitions", "mdlm.safetensors"))
    mask, x = int(golden["mask_id"]), golden["x_t"]
    p = probabilities(golden["logits"], mask)
    dt = float(golden[f"case{case}.dt"])
    for row, t in enumerate(golden[f"case{case}.t"].double()):
        masked = x[row] == mask
        for name, noise in (("ddpm", LogLinear(1e-3)), ("ddpm_cache", TIME_ITSELF)):
            r = SOLVERS["tweedie"].reveal_probability(noise, t, t - dt)
            ours = (r * p[row]).index_fill(-1, torch.tensor([mask]), float(1 - r))
            # theirs is multiplied by the probability of a mask at t
            theirs = golden[f"case{case}.{name}.q_xs"][row].double() / noise.masked(t)
            torch.testing.assert_close(ours[masked], theirs[masked], **TOLERANCE)
        noise, corruption = LogLinear(1e-3), Absorbing(mask, p.shape[-1])
        for name, s in (("analytic", float(t) - dt), ("denoiser", None)):
            total_next = 0.0 if s is None else float(noise.total(s))
            ours = corruption.posterior(p[row], x[row], float(noise.total(t)), total_next, "logits")
            theirs = golden[f"case{case}.{name}.probs"][row].double()
            torch.testing.assert_close(ours[masked], theirs[masked], **TOLERANCE)
