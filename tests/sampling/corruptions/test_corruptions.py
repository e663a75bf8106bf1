"""Corruption processes: their own laws, the official numbers, and the exact law of LSDScheduler's samples."""

import functools
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from helpers.golden_files import fixture_path
from helpers.goodness_of_fit import p_value
from safetensors.torch import load_file
from scipy.linalg import expm

from lsd_sampler import Denoiser, DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill
from lsd_sampler.denoisers import random_chain
from lsd_sampler.sampling.corruptions import Absorbing, Corruption, Gaussian, Uniform
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
from lsd_sampler.sampling.moves import TokenMoves
from lsd_sampler.sampling.noise import Exponential, LogLinear, make_noise_schedule
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


def gaussian_base_rate(num_states: int, rate_sigma: float, q_sigma: float) -> np.ndarray:
    """Entry by entry, in the official order: the last digits matter to eigenvectors."""
    S, rate = num_states, np.zeros((num_states, num_states))
    by_distance = np.exp(-(np.arange(S) ** 2) / rate_sigma**2)
    for i in range(S):
        inwards = range(i + 1, S - i) if i < S // 2 else range(S - i, i) if i > S // 2 else ()
        for j in inwards:
            rate[i, j] = by_distance[abs(j - i) - 1]
    for i, j in itertools.product(range(S), repeat=2):
        if rate[j, i] > 0:
            energy = (j + 1) ** 2 - (i + 1) ** 2 + S * (i - j)
            rate[i, j] = rate[j, i] * np.exp(-energy / (2 * q_sigma**2))
    return rate - np.diag(rate.sum(1))


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


def test_official_gaussian_rates() -> None:
    import yaml

    config = yaml.safe_load(fixture_path("ctmc_tauldr", "config.yaml").read_text())
    golden, model = load_file(fixture_path("ctmc_tauldr", "expected.safetensors")), config["model"]
    corruption = Gaussian(config["data"]["S"], model["rate_sigma"], model["Q_sigma"])
    noise = Exponential(model["time_base"], model["time_exponential"])
    torch.testing.assert_close(corruption.base_rate.float(), golden["base_rate"], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(corruption.prior().float(), golden["initial_probs"], rtol=1e-4, atol=1e-7)
    for t, rate, transition in zip(golden["t"].tolist(), golden["rate"], golden["transition"], strict=True):
        ours = (noise.rate(t) * corruption.base_rate).float()
        torch.testing.assert_close(ours, rate, rtol=1e-4, atol=1e-6)
        x = torch.arange(corruption.num_states)
        law = corruption.forward_law(x, float(noise.total(t))).float()
        torch.testing.assert_close(law, transition, rtol=0, atol=2e-5)


@pytest.mark.parametrize("num_states", [2, 3, 5, 8, 13])
def test_gaussian_rates_of_any_number_of_levels(num_states: int) -> None:
    """The stationary law has its middle at S / 2, the law at `t = 1` at the integer half."""
    corruption = Gaussian(num_states, 3.0, 6.0)
    ours = corruption.base_rate
    torch.testing.assert_close(ours, torch.from_numpy(gaussian_base_rate(num_states, 3.0, 6.0)), rtol=1e-12, atol=0)
    stationary = discretised_gaussian(num_states, num_states / 2, 6.0)
    flow = stationary[:, None] * ours
    torch.testing.assert_close(flow, flow.T, rtol=1e-10, atol=1e-14)
    assert bool((ours[~torch.eye(num_states, dtype=torch.bool)] >= 0).all())
    torch.testing.assert_close(corruption.prior(), discretised_gaussian(num_states, num_states // 2, 6.0))


@pytest.mark.parametrize(("num_states", "rate_sigma", "q_sigma"), [(16, 2.0, 8.0), (31, 4.0, 40.0), (256, 6.0, 512.0)])
@pytest.mark.parametrize("t", [0.01, 0.1, 0.5])
def test_official_rounding_of_gaussian_scores(num_states: int, rate_sigma: float, q_sigma: float, t: float) -> None:
    """The official transition is numpy's eigenvectors in float32. What it has of very small probabilities is rounding,
    which scores divide by.
    """
    decomposition = np.linalg.eig(gaussian_base_rate(num_states, rate_sigma, q_sigma))
    values, vectors = (torch.from_numpy(x).float() for x in decomposition)
    inverse = torch.from_numpy(np.linalg.inv(decomposition[1])).float()
    total = 3.0 * 100.0 ** torch.tensor(t) - 3.0
    law = vectors @ torch.diag(torch.exp(total * values)) @ inverse
    law[law < 1e-8] = 0
    p = torch.linspace(-3, 3, num_states).softmax(0)
    expected = (p / (law.T + 1e-9)) @ law
    corruption, x = Gaussian(num_states, rate_sigma, q_sigma), torch.arange(num_states)
    total_noise = float(Exponential(3.0, 100.0).total(t))
    prediction = p.double().expand(num_states, -1)
    ours = corruption.score(prediction, x, total_noise, "logits")
    off = ~torch.eye(num_states, dtype=torch.bool)
    torch.testing.assert_close(ours[off], expected.double()[off], rtol=2e-4, atol=1e-5)
    # forwards, nothing is rounded
    exact = torch.from_numpy(expm(total_noise * gaussian_base_rate(num_states, rate_sigma, q_sigma)))
    torch.testing.assert_close(corruption.forward_law(x, total_noise), exact, rtol=1e-9, atol=2e-8)


def test_gaussian_scores_where_float32_has_no_decomposition() -> None:
    """They are of the exact law, then."""
    corruption, x = Gaussian(20, 2.0, 1.0), torch.arange(20)
    law = corruption.forward_law(x, 1.5)
    p = torch.linspace(-3, 3, 20).double().softmax(0)
    off = ~torch.eye(20, dtype=torch.bool)
    score = corruption.score(p.expand(20, -1), x, 1.5, "logits")
    torch.testing.assert_close(score[off], ((p / (law.T + 1e-9)) @ law)[off])


# ---- the exact law of a generation ----

DATA = random_chain(V, L, seed=3)
P0 = np.array([float(DATA.initial[a] * DATA.transition[a, b]) for a, b in STATES])
NOISE = LogLinear(1e-3)


class Oracle(Denoiser):
    """Exact predictions for sequences of two tokens under noise without a mask, by enumeration."""

    def __init__(self, corruption: Any, prediction_type: str):
        super().__init__()
        self.process, self.corruption, self.prediction_type = corruption, corruption.name, prediction_type
        self.mask_token_id, self.vocab_size, self.length, self.noise = None, V, L, NOISE
        self.time_conditioned = True

    def scheduler_config(self) -> dict[str, Any]:
        extra = {"rate_sigma": 2.0, "q_sigma": 3.0} if self.corruption == "gaussian" else {}
        return {**super().scheduler_config(), **extra}

    @functools.lru_cache(maxsize=64)  # noqa: B019  (a handful of small tables)
    def table(self, t: float) -> np.ndarray:
        """Per state and position: probabilities of the clean token, or the concrete score. `(states, L, V)`."""
        q = self.process.forward_law(torch.arange(V), float(NOISE.total(t))).numpy()
        joint = P0[:, None] * np.array([[q[a, x] * q[b, y] for x, y in STATES] for a, b in STATES])
        noised = joint.sum(0)
        out = np.zeros((len(STATES), L, V))
        for state, i, v in itertools.product(range(len(STATES)), range(L), range(V)):
            if self.prediction_type == "logits":
                out[state, i, v] = sum(joint[k, state] for k, x0 in enumerate(STATES) if x0[i] == v) / noised[state]
            else:
                other = list(STATES[state])
                other[i] = v
                out[state, i, v] = noised[STATES.index(tuple(other))] / noised[state]
        return out

    def forward(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:  # type: ignore[override]
        assert t is not None
        index = tokens[:, 0] * V + tokens[:, 1]
        return torch.from_numpy(np.log(self.table(float(t[0])))).float()[index]


PHI, BETA, TIMES = (1.3, 0.7, 1.0), (0.8, 1.4, 1.2), (1.0, 0.6, 0.25, 1e-4)
PLAIN = (1.0, 1.0, 1.0)


def exact_law(oracle: Oracle, solver: str, phi: tuple[float, ...], beta: tuple[float, ...]) -> np.ndarray:
    """By matrix products over all canvases; a step's law of one token from its definition."""
    Q = generator_matrix(oracle.process)
    prior = oracle.process.prior().numpy()
    law = np.array([prior[a] * prior[b] for a, b in STATES])
    for k, (t, s) in enumerate(itertools.pairwise(TIMES)):
        s = s if k < len(TIMES) - 2 else 0.0
        before, after = (float(NOISE.total(u)) for u in (t, s))
        late, early, less = expm(before * Q), expm(after * Q), expm((before - after) * Q)
        table = oracle.table(float(np.float32(t))) ** beta[k]
        if oracle.prediction_type == "logits":
            table /= table.sum(-1, keepdims=True)
        moves = np.zeros((len(STATES), L, V))
        for state, i in itertools.product(range(len(STATES)), range(L)):
            x, p = STATES[state][i], table[state, i]
            weight = p / late[:, x] if oracle.prediction_type == "logits" else p @ np.linalg.inv(late)
            if solver == "euler" and s > 0:
                row = (t - s) * float(NOISE.rate(t)) * phi[k] * (weight @ late) * Q[:, x]
                row[x] = 0
                row[x] = 1 - row.sum()
            else:
                row = (weight @ early) * less[:, x]
                if s > 0:
                    own = row[x] + (1 - phi[k]) * (row.sum() - row[x])
                    row = phi[k] * row
                    row[x] = own
            moves[state, i] = row.clip(0) / row.clip(0).sum()
        law = law @ np.array([np.outer(*moves[state]).ravel() for state in range(len(STATES))])
    return law


@pytest.mark.parametrize(("phi", "beta"), [(PLAIN, PLAIN), (PHI, BETA)])
@pytest.mark.parametrize("solver", ["tweedie", "euler"])
@pytest.mark.parametrize(
    ("corruption", "prediction_type"),
    [(Uniform(V), "logits"), (Uniform(V), "log_score"), (Gaussian(V, 2.0, 3.0), "logits")],
    ids=name_of,
)
def test_samples_follow_the_exact_law(
    corruption: Any, prediction_type: str, solver: str, phi: tuple[float, ...], beta: tuple[float, ...]
) -> None:
    oracle = Oracle(corruption, prediction_type)
    scheduler = LSDScheduler(**oracle.scheduler_config(), solver=solver)
    numbers = (torch.tensor(x, dtype=torch.float64) for x in (TIMES, phi, beta))
    scheduler.set_learned_sampler(LearnedSampler({3: LearnedSteps(*numbers)}))
    pipe = MaskedDiffusionPipeline(oracle, scheduler)
    pipe.set_progress_bar_config(disable=True)
    out = pipe(num_samples=NUM_SAMPLES, num_inference_steps=3, generator=torch.Generator().manual_seed(2))
    counts = torch.bincount(out.sequences[:, 0] * V + out.sequences[:, 1], minlength=len(STATES)).numpy()
    law = exact_law(oracle, solver, phi, beta)
    assert abs(law.sum() - 1) < 1e-6
    assert p_value(counts, law) > FALSE_ALARM
    wrong = exact_law(oracle, solver, phi, tuple(1.5 * x for x in beta))
    assert p_value(counts, wrong) < FALSE_ALARM  # the test has power


def test_many_small_steps_give_the_data() -> None:
    """Total variation between the exact law of `tweedie` and the data, at 3 steps and at 48."""
    distances = []
    for steps in (3, 48):
        oracle = Oracle(Uniform(V), "log_score")
        pipe = MaskedDiffusionPipeline(oracle, LSDScheduler(**oracle.scheduler_config()))
        pipe.set_progress_bar_config(disable=True)
        out = pipe(num_samples=NUM_SAMPLES, num_inference_steps=steps, generator=torch.Generator().manual_seed(2))
        counts = torch.bincount(out.sequences[:, 0] * V + out.sequences[:, 1], minlength=len(STATES)).numpy()
        distances.append(np.abs(counts / NUM_SAMPLES - P0).sum() / 2)
    assert distances[1] < 0.02 < distances[0]


# ---- generation ----


def pipeline(kind: str = "uniform", **options: Any) -> Any:
    process = Uniform(V) if kind == "uniform" else Gaussian(V, 2.0, 3.0)
    oracle = Oracle(process, "logits")
    pipe = MaskedDiffusionPipeline(oracle, LSDScheduler(**oracle.scheduler_config(), **options))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
def test_what_is_given_stays(kind: str) -> None:
    pipe = pipeline(kind)
    seen: list[torch.Tensor] = []
    pipe.denoiser.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    out = pipe(prefix=[2], num_samples=8, num_inference_steps=5).sequences
    assert all(bool((x[:, 0] == 2).all()) for x in [*seen, out]) and len(seen) == 5
    holes = pipe(input_ids=[[-1, 0], [1, -1]], num_inference_steps=2).sequences
    assert holes[0, 1] == 0 and holes[1, 0] == 1 and bool((holes >= 0).all())
    with pytest.raises(ValueError, match="`input_ids` must be token ids in"):
        pipe(input_ids=[[-2, 0]])
    with pytest.raises(ValueError, match="`prefix` must be tokens without"):
        pipe(prefix=[-1])


def test_a_row_depends_on_its_generator_alone() -> None:
    pipe = pipeline()

    def run(seeds: list[int]) -> list[list[int]]:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return pipe(num_samples=len(seeds), num_inference_steps=4, generator=generators).sequences.tolist()

    assert run([1, 2, 3]) == [*run([1]), *run([2, 3])]


def test_temperature_zero_ends_in_the_most_likely_tokens() -> None:
    pipe = pipeline()
    out = pipe(num_samples=50, num_inference_steps=1, temperature=0.0).sequences
    p = pipe.denoiser.table(1.0)
    expected = {state: tuple(p[k].argmax(-1)) for k, state in enumerate(STATES)}
    assert {tuple(x) for x in out.tolist()} <= set(expected.values())


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


# ---- distillation ----


def test_score_coefficients_are_ratios_of_total_rates() -> None:
    """A student whose scores are too large by a factor that the teacher's are too: the coefficient stays 1. And with
    the exact oracle the ratio is that of the mean rates where teacher and student are in the same state.
    """
    pipe = pipeline(solver="euler")
    seen: list[torch.Tensor] = []
    pipe.denoiser.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    num, M = 64, 4
    config = DistillConfig(method="lsd", solver="euler", nfe=(M,), teacher_steps=32, num_sequences=num)
    learned = distill(pipe, config)
    coefficients = learned.steps_for(M).score_coefficients
    reverse = TokenMoves(Uniform(V), NOISE, SOLVERS["euler"], "logits")
    for k, canvas in enumerate(seen[-M:]):
        teacher, student = canvas[:num], canvas[num:]
        t = float(learned.steps_for(M).timesteps[k])
        output = pipe.denoiser(canvas, torch.tensor([np.float32(t)]))
        same = teacher == student
        rates = [reverse.total_rates(x[same], teacher[same], t).sum() for x in (output[:num], output[num:])]
        assert float(coefficients[k]) == pytest.approx(float(rates[0] / rates[1]), rel=1e-6)
    assert float(coefficients[0]) == pytest.approx(1.0)  # both begin with the same noise
    assert bool((learned.steps_for(M).log_score_coefficients == 1).all())
    assert learned.config.corruption == "uniform" and learned.config.mask_token_id is None


def test_methods_for_masks_say_so() -> None:
    with pytest.raises(ValueError, match="`method` 'path_kl' is about revealing masks"):
        distill(pipeline(), DistillConfig(method="path_kl", order="random", nfe=(2,)))
    with pytest.raises(ValueError, match="`domain` 'log_score' is for absorbing noise"):
        distill(pipeline(), DistillConfig(method="lsd", domain="log_score", nfe=(2,), teacher_steps=4))


def test_a_learned_sampler_is_saved_and_loaded(tmp_path: Any) -> None:
    config = DistillConfig(method="lsd", nfe=(2,), teacher_steps=8, num_sequences=8)
    learned = distill(pipeline("gaussian"), config)
    learned.save_pretrained(tmp_path)
    loaded = LSDScheduler.from_pretrained(tmp_path)
    entries = [{k: v for k, v in sampler.config.items() if k[0] != "_"} for sampler in (loaded, learned)]
    assert entries[0] == entries[1]
    first, second = pipeline("gaussian"), pipeline("gaussian")
    first.scheduler, second.scheduler = learned, loaded
    outputs = [
        p(num_samples=20, num_inference_steps=2, generator=torch.Generator().manual_seed(0)).sequences
        for p in (first, second)
    ]
    assert torch.equal(*outputs)
