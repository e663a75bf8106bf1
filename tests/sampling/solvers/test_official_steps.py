"""One step of other projects' samplers: the numbers that their own code hands to its random draw."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.golden_files import fixture_path
from helpers.goodness_of_fit import p_value
from helpers.tiny_oracle import FALSE_ALARM, NUM_SAMPLES
from safetensors.torch import load_file
from scipy.stats import beta as Beta

from lsd_sampler import LSDScheduler, load_denoiser
from lsd_sampler.denoisers import CTMCDenoiser
from lsd_sampler.sampling.corruptions import Absorbing, Gaussian
from lsd_sampler.sampling.draws import keep_likely
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
from lsd_sampler.sampling.moves import TokenMoves
from lsd_sampler.sampling.noise import LogLinear, make_noise_schedule
from lsd_sampler.sampling.schedules import grid_from_counts
from lsd_sampler.sampling.solvers import SOLVERS
from lsd_sampler.sampling.solvers.dndm import lowest, transition_weights
from lsd_sampler.sampling.solvers.remdm import ReMDM, share


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


@pytest.mark.parametrize("curve", ["arccos", "cosine", "linear", "root", "square"])
@pytest.mark.parametrize(("size", "steps"), [(4, 4), (4, 12), (8, 12), (16, 4), (16, 32), (24, 12)])
def test_official_confidence_counts(size: int, steps: int, curve: str) -> None:
    """Any counts are met by the grid that is made from them; the authors reveal at least one token in each step."""
    key = f"confidence_count.size{size}.step{steps}.{curve}"
    counts = load_file(fixture_path("transitions", "halton.safetensors"))[key].tolist()
    counts = [0, *(max(count, k) for k, count in enumerate(counts, start=1))]
    scheduler = LSDScheduler(mask_token_id=2, order="confidence", confidence_temperature=4.5)
    grid = grid_from_counts(counts, scheduler.noise, scheduler.config.sampling_eps)
    scheduler.set_learned_sampler(LearnedSampler({steps: LearnedSteps.plain(grid)}))
    scheduler.set_timesteps(steps)
    sample, known = torch.full((1, size, size), 2), [0]
    for t in scheduler.timesteps:
        sample = scheduler.step(torch.randn(1, size * size, 2), t, sample).prev_sample
        known.append(int((sample != 2).sum()))
    assert known == counts


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("cosine", {"weights": "cosine"}),
        ("beta_17.0_5.0", {"weights": "beta", "alpha": 17.0, "beta": 5.0}),
        ("beta_3.0_3.0", {"weights": "beta", "alpha": 3.0, "beta": 3.0}),
    ],
)
def test_official_dndm_weights(key: str, options: dict[str, Any]) -> None:
    golden = load_file(fixture_path("transitions", "dndm.safetensors"))
    theirs = golden[f"{key}.T50.weights"].double()
    ours = transition_weights(50, SOLVERS["dndm"].read_options(options))
    # their Beta density goes through logarithms in float32
    torch.testing.assert_close(ours / ours.sum(), theirs / theirs.sum(), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 20, 50])
def test_official_dndm_linear_lambda(steps: int) -> None:
    """From the last time down, those that still wait take it with a probability that grows; the rest have time 0."""
    law, waiting = [0.0] * steps, 1.0
    for i in range(steps):
        law[steps - 1 - i] += waiting * i / steps
        waiting *= 1 - i / steps
    law[0] += waiting
    ours = transition_weights(steps, SOLVERS["dndm"].read_options({"weights": "linear_lambda"}))
    assert (ours / ours.sum()).tolist() == pytest.approx(law, rel=1e-12)
    if steps == 20:  # peaked, as 400,000 draws of the authors' code are
        assert law[13:16] == pytest.approx([0.131, 0.145, 0.145], abs=1e-3) and law[19] == 0


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 24])
@pytest.mark.parametrize(("alpha", "beta"), [(5, 3), (3, 3), (17, 5), (20, 5), (100, 4), (1, 1), (1.5, 2.25)])
def test_official_dndm_beta_of_few_steps(alpha: float, beta: float, steps: int) -> None:
    """Below half of the training steps a time is M times a draw, rounded down; from half on, the density decides."""
    options = {"weights": "beta", "alpha": alpha, "beta": beta}
    ours = transition_weights(steps, SOLVERS["dndm"].read_options({**options, "training_steps": 2 * steps + 1}))
    law = torch.from_numpy(Beta(alpha, beta).cdf([k / steps for k in range(steps + 1)])).diff()
    torch.testing.assert_close(ours / ours.sum(), law, rtol=0, atol=1e-9)
    ours = transition_weights(steps, SOLVERS["dndm"].read_options({**options, "training_steps": 2 * steps}))
    density = torch.from_numpy(Beta(alpha, beta).pdf(torch.linspace(0, 1, steps, dtype=torch.float64).numpy()))
    if steps > 2:  # else it may be 0
        torch.testing.assert_close(ours / ours.sum(), density / density.sum(), rtol=1e-9, atol=1e-12)


def test_official_dndm_lowest_scores() -> None:
    golden = load_file(fixture_path("transitions", "dndm.safetensors"))
    scores, mask = golden["topk.scores"], golden["topk.mask"]
    among = torch.ones_like(mask)
    assert torch.equal(lowest(scores, golden["topk.cutoff"][:, 0], among), mask)


@pytest.mark.parametrize("sampler", ["TauLeaping", "PCTauLeaping"])
def test_official_tau_leaping_rates(sampler: str) -> None:
    """Rates times the step, through network, score and reverse process; a corrector adds the forward rates."""
    golden = load_file(fixture_path("transitions", "ctmc.safetensors"))
    denoiser = load_denoiser(str(fixture_path("ctmc_tauldr")))
    assert isinstance(denoiser, CTMCDenoiser)
    corruption = Gaussian(denoiser.vocab_size, denoiser.rate_sigma, denoiser.q_sigma)
    reverse = TokenMoves(corruption, denoiser.noise, SOLVERS["euler"], "logits")
    times = golden[f"{sampler}.t"].tolist()
    # three steps, the last of them to 0; or two, with two correctors after each, 1.5 times as long
    lengths = [0.495, 0.495, 0.01] if sampler == "TauLeaping" else [h * (0.99 - 1 / 3) / 2 for h in (1, 1.5, 1.5)] * 2
    for k, theirs in enumerate(golden[f"{sampler}.rate_times_h"].flatten(1, 2).double()):
        x, t = golden[f"{sampler}.x"][k].long(), times[k]
        with torch.no_grad():
            prediction = reverse.predictions(denoiser(x, torch.full((len(x),), t)).flatten(0, 1), 1.0)
        x_R, rate = x.flatten(), float(denoiser.noise.rate(t))
        score = corruption.score(prediction, x_R, float(denoiser.noise.total(t)), "logits")
        ours = rate * corruption.reverse_rates(score, x_R)
        if sampler == "PCTauLeaping" and k % 3:
            ours = ours + rate * corruption.base_rate[x_R].scatter(1, x_R[:, None], 0.0)
        torch.testing.assert_close(lengths[k] * ours, theirs, rtol=2e-4, atol=1e-5)
