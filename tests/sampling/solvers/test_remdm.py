"""ReMDM: the numbers that the official code hands to its random draw."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.golden_files import fixture_path
from helpers.goodness_of_fit import p_value
from helpers.tiny_oracle import FALSE_ALARM, NUM_SAMPLES
from safetensors.torch import load_file

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.draws import keep_likely
from lsd_sampler.sampling.noise import LogLinear
from lsd_sampler.sampling.solvers import SOLVERS
from lsd_sampler.sampling.solvers.remdm import ReMDM, share


TOLERANCE: dict[str, float] = {"rtol": 1e-5, "atol": 1e-6}
TIME_ITSELF = LogLinear(1e-12)
"""Of samplers that take t for the probability of a mask."""


def probabilities(logits: torch.Tensor, mask: int) -> torch.Tensor:
    return logits.double().masked_fill(torch.arange(logits.shape[-1]) == mask, -torch.inf).softmax(-1)


@pytest.mark.parametrize("case", range(3))
@pytest.mark.parametrize(
    ("solver", "key", "options"),
    [
        ("tweedie", "mdlm", {}),
        ("remdm_fb", "fb", {}),
        ("remdm_cap", "cap", {"eta": 0.04}),
        ("remdm_rescale", "rescale", {"eta": 0.04}),
        ("remdm_conf", "conf", {}),
        ("remdm_loop", "loop", {"eta": 0.02, "t_on": 0.55, "t_off": 0.05, "alpha_on": 0.9}),
    ],
)
def test_official_remdm_steps(solver: str, key: str, options: dict[str, Any], case: int) -> None:
    golden = load_file(fixture_path("transitions", "remdm.safetensors"))
    mask, x = int(golden["mask_id"]), golden["x_t"]
    masked, p = x == mask, probabilities(golden["logits"], mask)
    t, dt = float(golden[f"case{case}.t"]), float(golden[f"case{case}.dt"])
    ours = SOLVERS[solver]
    if isinstance(ours, ReMDM):
        reveal, remask = ours.chances(TIME_ITSELF, t, t - dt, ours.read_options(options))
    else:
        times = torch.tensor([t, t - dt], dtype=torch.float64)
        reveal, remask = float(ours.reveal_probability(TIME_ITSELF, *times)), 0.0
    doubt = golden["conf"].double() if key == "conf" else torch.zeros(x.shape, dtype=torch.float64)
    sigma = remask * (share(doubt) if key == "conf" else torch.ones_like(doubt))
    law = torch.where(masked[..., None], reveal * p, (1 - sigma)[..., None] * F.one_hot(x, p.shape[-1]))
    law[..., mask] = torch.where(masked, 1 - reveal, sigma)
    theirs = golden[f"case{case}.{key}.q_xs"].double()
    # without remasking theirs is not normalised, and known tokens are kept whatever it says
    rows = torch.ones_like(masked) if remask else masked
    # in float32 they lose digits where there is little noise
    tolerance = {"rtol": 1e-5 + 1e-6 / (t - dt), "atol": 1e-6}
    torch.testing.assert_close(law[rows], (theirs / theirs.sum(-1, keepdim=True))[rows], **tolerance)


def official_remdm_law(solver: str, options: dict[str, float], t: float, s: float) -> tuple[float, float]:
    """Chances to reveal and to mask again: the spec's weights, of which the draw passes over the negative ones."""
    a_t, a_s = 1 - t, 1 - s
    most = min(1.0, (1 - a_s) / a_t) if a_t else 1.0

    def drawn(weight: float, other: float) -> float:
        return max(weight, 0.0) / (max(weight, 0.0) + max(other, 0.0))

    if solver == "remdm_loop" and not options["t_off"] < t <= options["t_on"]:
        t_on, t_off, a_on = options["t_on"], options["t_off"], options["alpha_on"]
        masked = [1 - (1 - u) * a_on / (1 - t_on) if t > t_on else u * (1 - a_on) / t_off for u in (t, s)]
        return drawn(masked[0] - masked[1], masked[1]), 0.0
    if solver == "remdm_loop":
        a_t = a_s = options["alpha_on"]
    sigma = {
        "remdm_cap": lambda: min(options["eta"], most),
        "remdm_rescale": lambda: options["eta"] * most,
        "remdm_fb": lambda: (a_s - a_t) / a_t if a_t else 1.0,
        "remdm_conf": lambda: 0.0,  # at a masked position
        "remdm_loop": lambda: options["eta"],
    }[solver]()
    reveal = drawn((a_s - (1 - sigma) * a_t) / (1 - a_t), (1 - a_s - sigma * a_t) / (1 - a_t))
    return reveal, most if solver == "remdm_conf" else drawn(sigma, 1 - sigma)


@pytest.mark.parametrize(
    ("solver", "options"),
    [
        ("remdm_fb", {}),
        ("remdm_conf", {}),
        *((solver, {"eta": eta}) for solver in ("remdm_cap", "remdm_rescale") for eta in (0.0, 0.04, 0.7, 1.0)),
        *(
            ("remdm_loop", {"eta": eta, "t_on": t_on, "t_off": t_off, "alpha_on": alpha_on})
            for eta in (0.02, 0.2, 0.9)
            for t_on, t_off, alpha_on in ((0.55, 0.05, 0.9), (0.7, 0.2, 0.6), (0.9, 0.5, 0.3))
        ),
    ],
)
def test_official_remdm_weights_everywhere(solver: str, options: dict[str, float]) -> None:
    """At all times, steps and constants; in the first and the largest ones the authors' weights may be negative."""
    ours = SOLVERS[solver]
    assert isinstance(ours, ReMDM)
    for t in (1.0, 0.95, 0.8, 0.7, 0.56, 0.55, 0.5, 0.3, 0.21, 0.2, 0.1, 0.05, 0.04, 0.01):
        for s in (t * part for part in (0.01, 0.1, 0.5, 0.7, 0.9, 0.99)):
            chances = ours.chances(TIME_ITSELF, t, s, ours.read_options(options))
            assert chances == pytest.approx(official_remdm_law(solver, options, t, s), rel=1e-6, abs=1e-9), (t, s)
            assert all(0 <= chance <= 1 for chance in chances)


def test_official_remdm_top_p() -> None:
    """The token that crosses `top_p` is dropped: in the filter, and in what the solver draws in a plain step."""
    golden = load_file(fixture_path("transitions", "remdm.safetensors"))
    mask, x, logits = int(golden["mask_id"]), golden["x_t"], golden["logits"]
    theirs = golden["nucleus0.9.mdlm.t0.5.dt0.1.q_xs"].double()
    theirs /= theirs.sum(-1, keepdim=True)
    kept = probabilities(logits, mask)
    usual = kept.clone()
    keep_likely(kept.flatten(0, 1), 0.9, None, keeps_crossing=False)
    keep_likely(usual.flatten(0, 1), 0.9, None)
    masked = x == mask
    assert ((kept > 0).sum(-1) < (usual > 0).sum(-1))[masked].any()
    law = 0.2 * kept / kept.sum(-1, keepdim=True)
    law[..., mask] = 0.8
    torch.testing.assert_close(law[masked], theirs[masked], **TOLERANCE)

    scheduler = LSDScheduler(
        mask_token_id=mask, solver="remdm_cap", solver_options={"eta": 0.0}, noise_eps=1e-12, sampling_eps=1e-9
    )
    scheduler.set_timesteps(10)
    assert float(scheduler.timesteps[5]) == pytest.approx(0.5)
    canvases, generator = x.repeat(NUM_SAMPLES, 1), torch.Generator().manual_seed(0)
    out = scheduler.step(
        logits.repeat(NUM_SAMPLES, 1, 1), 5, canvases, top_p=0.9, generator=generator, return_dict=False
    )
    drawn = out[0].view(NUM_SAMPLES, *x.shape)
    assert torch.equal(drawn[:, ~masked], x[~masked].expand(NUM_SAMPLES, -1))
    for tokens, law_V in zip(drawn[:, masked].T, theirs[masked], strict=True):
        assert p_value(torch.bincount(tokens, minlength=len(law_V)).numpy(), law_V.numpy()) > FALSE_ALARM
