"""Steps in which every token may move: the exact law of samples, what is given, and what is learned."""

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

from lsd_sampler import Denoiser, DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill, load_denoiser
from lsd_sampler.denoisers import CTMCDenoiser, random_chain
from lsd_sampler.sampling.corruptions import Corruption, Gaussian, Uniform
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
from lsd_sampler.sampling.moves import TokenMoves
from lsd_sampler.sampling.noise import LogLinear
from lsd_sampler.sampling.solvers import SOLVERS


FALSE_ALARM = 1e-4  # of each test of a law; fixed seeds
NUM_SAMPLES = 20_000
V, L = 3, 2
STATES = list(itertools.product(range(V), repeat=L))
DATA = random_chain(V, L, seed=3)
P0 = np.array([float(DATA.initial[a] * DATA.transition[a, b]) for a, b in STATES])
NOISE = LogLinear(1e-3)
PHI, BETA, TIMES = (1.3, 0.7, 1.0), (0.8, 1.4, 1.2), (1.0, 0.6, 0.25, 1e-4)
PLAIN = (1.0, 1.0, 1.0)


def name_of(x: Any) -> str:
    return f"{x.name}{x.num_states}" if isinstance(x, Corruption) else str(x)


def generator_matrix(corruption: Corruption) -> np.ndarray:
    """Q, from the law after very little noise."""
    law = corruption.forward_law(torch.arange(corruption.num_states), 1e-6).numpy()  # type: ignore[attr-defined]
    return (law - np.eye(len(law))) / 1e-6


# ---- the exact law of a generation ----


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


# ---- official numbers ----


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
