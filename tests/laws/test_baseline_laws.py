"""The law of the canvas after every step of every baseline, on an oracle small enough to enumerate.

Each law is a Markov chain on what a sampler remembers, written here from the papers' formulas, and followed exactly.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from helpers.goodness_of_fit import p_value
from helpers.tiny_oracle import (
    FALSE_ALARM,
    INDEX,
    MASK,
    NOISE_EPS,
    ORACLE,
    SAMPLING_EPS,
    STATES,
    L,
    ScoreOracle,
    V,
    alpha,
    chosen_law,
    count_canvases,
    sigma,
)  # fmt: skip
from scipy.linalg import expm

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.denoisers import MarkovDenoiser
from lsd_sampler.sampling.schedules import GRIDS


Canvas = tuple[int, ...]
Table = dict[Canvas, list[list[float]]]
Kernel = Callable[[Any], Iterator[tuple[Any, float]]]

# not stationary, so that no two positions are alike: rules by which the surest comes first have no ties
INITIAL = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
START: Canvas = (MASK,) * L


class LeaveOneOut(MarkovDenoiser):
    """The oracle with an opinion about known tokens too: each is predicted from the others. It may be the sharper the
    further right.
    """

    sharper = 0.0

    def forward(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
        rows = [super(LeaveOneOut, self).forward(tokens.index_fill(1, torch.tensor([i]), MASK)) for i in range(L)]
        return torch.stack([(1 + self.sharper * i) * row[:, i] for i, row in enumerate(rows)], dim=1).log_softmax(-1)


def table(denoiser: MarkovDenoiser) -> Table:
    """Law of the token at each position, by canvas."""
    return dict(zip(STATES, denoiser(torch.tensor(STATES)).exp().tolist(), strict=True))


CHAIN = MarkovDenoiser(ORACLE.transition, INITIAL, L)
PROBS = table(CHAIN)


def make_pipeline(
    solver: str, options: dict[str, Any], denoiser: Any = CHAIN, **config: Any
) -> MaskedDiffusionPipeline:
    scheduler = LSDScheduler(
        mask_token_id=MASK,
        solver=solver,
        solver_options=options,
        noise_eps=NOISE_EPS,
        sampling_eps=SAMPLING_EPS,
        prediction_type=denoiser.prediction_type,
        **config,
    )
    pipeline = MaskedDiffusionPipeline(denoiser, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def scored(scale: Any) -> ScoreOracle:
    """The chain as a model of the score that is off by a factor (for each position)."""
    denoiser = ScoreOracle(CHAIN.transition, INITIAL, L)
    denoiser.prediction_type, denoiser.scale, denoiser.noise_name = "log_score", scale, "log_linear"
    return denoiser


def uniform_times(num_steps: int) -> list[float]:
    return [1 + (SAMPLING_EPS - 1) * k / num_steps for k in range(num_steps + 1)]


def a(t: float) -> float:
    return alpha("log_linear", t)


def odds(t: float) -> float:
    return a(t) / (1 - a(t))


# ---- chains ----


def follow(start: Any, kernels: list[Kernel]) -> np.ndarray:
    """Law of the canvas after each step, `(steps, states)`; a state is a canvas, or a tuple that begins with one."""
    law: dict[Any, float] = {start: 1.0}
    laws = np.zeros((len(kernels), len(STATES)))
    for k, kernel in enumerate(kernels):
        after: Counter[Any] = Counter()
        for state, p in law.items():
            for following, q in kernel(state):
                after[following] += p * q
        law = after
        for state, p in law.items():
            laws[k, INDEX[state if isinstance(state[0], int) else state[0]]] += p
    assert np.abs(laws.sum(1) - 1).max() < 1e-12
    return laws


def assert_follows(pipeline: MaskedDiffusionPipeline, laws: np.ndarray, calls: list[int] | None = None) -> None:
    """The canvases after these calls (default: each) are drawn from these laws."""
    calls = calls or list(range(len(laws)))
    observed = count_canvases(pipeline, calls[-1] + 1)
    for call, law in zip(calls, laws, strict=True):
        assert p_value(observed[call], law) > FALSE_ALARM, f"after call {call}"


def independent(rows: list[list[float]]) -> Iterator[tuple[Canvas, float]]:
    """Each position by a law of its own, over tokens and mask."""
    for tokens in itertools.product(range(V + 1), repeat=L):
        q = math.prod(row[y] for row, y in zip(rows, tokens, strict=True))
        if q > 0:
            yield tokens, q


def exchanged(canvas: Canvas, reveal: Callable[[int], float], remask: Callable[[int], float]) -> list[list[float]]:
    """Rows of a step that reveals and masks positions, each with its probability."""
    rows = []
    for i, x in enumerate(canvas):
        if x == MASK:
            rows.append([reveal(i) * p for p in PROBS[canvas][i]] + [1 - reveal(i)])
        else:
            rows.append([(1 - remask(i)) * (y == x) for y in range(V)] + [remask(i)])
    return rows


def all_revealed(canvas: Canvas) -> Iterator[tuple[Canvas, float]]:
    return independent(exchanged(canvas, lambda i: 1.0, lambda i: 0.0))


def candidates(
    canvas: Canvas, probs: dict[Canvas, list[list[float]]] = PROBS
) -> Iterator[tuple[dict[int, int], float]]:
    """Tokens for all masked positions, drawn independently, and their probability."""
    masked = [i for i in range(L) if canvas[i] == MASK]
    for tokens in itertools.product(range(V), repeat=len(masked)):
        chosen = dict(zip(masked, tokens, strict=True))
        yield chosen, math.prod(probs[canvas][i][y] for i, y in chosen.items())


def placed(canvas: Canvas, tokens: dict[int, int]) -> Canvas:
    return tuple(tokens.get(i, x) for i, x in enumerate(canvas))


def drawn_at(canvas: Canvas, positions: Any) -> Iterator[tuple[Canvas, float]]:
    return independent(exchanged(canvas, lambda i: float(i in positions), lambda i: 0.0))


# ---- ReMDM ----


def remdm_chances(solver: str, options: dict[str, float], t: float, s: float) -> tuple[float, float]:
    """Probability that a masked position is revealed, and that a known one is masked again."""
    a_t, a_s, remask = a(t), a(s), 0.0
    if solver == "remdm_loop":
        if t > options["t_on"]:
            a_t, a_s = (a(time) * options["alpha_on"] / a(options["t_on"]) for time in (t, s))
        elif t > options["t_off"]:
            a_t = a_s = options["alpha_on"]
            remask = options["eta"]
        else:
            a_t, a_s = (1 - (1 - options["alpha_on"]) * (1 - a(time)) / (1 - a(options["t_off"])) for time in (t, s))
    else:
        largest = min(1, (1 - a_s) / a_t)
        remask = {
            "remdm_cap": lambda: min(options["eta"], largest),
            "remdm_rescale": lambda: options["eta"] * largest,
            "remdm_fb": lambda: (a_s - a_t) / a_t if t < 1 else 1.0,
        }[solver]()
    return min(1, (a_s - (1 - remask) * a_t) / (1 - a_t)), min(1, remask)


@pytest.mark.parametrize("prediction_type", ["logits", "log_score"])
@pytest.mark.parametrize(
    ("solver", "options", "schedule"),
    [
        ("remdm_cap", {"eta": 0.3}, "uniform"),
        ("remdm_rescale", {"eta": 0.5}, "uniform"),
        ("remdm_fb", {}, "uniform"),
        ("remdm_fb", {}, "cosine"),  # whose second step asks for a sigma of 2.8
        ("remdm_loop", {"eta": 0.3, "t_on": 0.7, "t_off": 0.3, "alpha_on": 0.6}, "uniform"),
        ("remdm_loop", {"eta": 0.9, "t_on": 0.7, "t_off": 0.3, "alpha_on": 0.6}, "uniform"),
    ],
)
def test_remdm(solver: str, options: dict[str, float], schedule: str, prediction_type: str) -> None:
    times = GRIDS[schedule](5, SAMPLING_EPS).tolist()
    chances = [remdm_chances(solver, options, t, s) for t, s in itertools.pairwise(times[:-1])]
    assert sum(remask > 0.05 for _, remask in chances) >= 2
    kernels: list[Kernel] = [
        lambda canvas, r=r, q=q: independent(exchanged(canvas, lambda i: r, lambda i: q)) for r, q in chances
    ]
    denoiser = CHAIN if prediction_type == "logits" else scored(0.4)
    assert_follows(
        make_pipeline(solver, options, denoiser, schedule=schedule), follow(START, [*kernels, all_revealed])
    )


def test_remdm_conf() -> None:
    """The chain remembers with which probability each known token was drawn."""

    def step(t: float, s: float) -> Kernel:
        r, largest = (a(s) - a(t)) / (1 - a(t)), min(1, (1 - a(s)) / a(t))

        def kernel(state: Any) -> Iterator[tuple[Any, float]]:
            canvas, drawn = state
            weights = [math.exp(-p) if p else 0.0 for p in drawn]
            rows = exchanged(canvas, lambda i: r, lambda i: largest * weights[i] / sum(weights))
            for following, q in independent(rows):
                remembered = [
                    0.0 if y == MASK else (PROBS[canvas][i][y] if canvas[i] == MASK else drawn[i])
                    for i, y in enumerate(following)
                ]
                yield (following, tuple(remembered)), q

        return kernel

    kernels = [step(t, s) for t, s in itertools.pairwise(uniform_times(4)[:-1])]
    laws = follow((START, (0.0,) * L), [*kernels, lambda state: all_revealed(state[0])])
    assert_follows(make_pipeline("remdm_conf", {}), laws)


def test_remdm_conf_doubts_improbable_tokens() -> None:
    """Of two known tokens, drawn with probability 0.99 and 1/8, the latter is masked again more often."""
    logits = torch.zeros(1, 2, 8, dtype=torch.float64)
    logits[0, 0, 0] = math.log(0.99 / 0.01 * 7)
    scheduler = LSDScheduler(mask_token_id=8, solver="remdm_conf", sampling_eps=SAMPLING_EPS)
    scheduler.set_timesteps(4)
    sample, generator = torch.full((20_000, 2), 8), torch.Generator().manual_seed(1)
    for k in range(2):
        sample = scheduler.step(logits.expand(20_000, -1, -1), k, sample, generator=generator).prev_sample
    likely = (sample[:, 0] == 0) & (sample[:, 1] != 8)
    after = scheduler.step(logits.expand(20_000, -1, -1), 2, sample, generator=generator).prev_sample[likely] == 8
    t, s = uniform_times(4)[2:4]
    share = np.exp([-0.99, -1 / 8]) / np.exp([-0.99, -1 / 8]).sum()
    q, r = min(1, (1 - a(s)) / a(t)) * share
    law = np.array([(1 - q) * (1 - r), (1 - q) * r, q * (1 - r), q * r])
    observed = torch.bincount(2 * after[:, 0] + after[:, 1], minlength=4).numpy()
    assert p_value(observed, law) > FALSE_ALARM and p_value(observed, law[[0, 2, 1, 3]]) < FALSE_ALARM


# ---- predictor-corrector ----


@pytest.mark.parametrize("scale", [None, [1.0, 0.4, 1.7]])
def test_predictor_corrector(scale: list[float] | None) -> None:
    """9 calls: five steps, and two correctors after each that begins below the entry and is not the last."""
    times = uniform_times(5)
    factor = scale or [1.0] * L

    def predictor(t: float, s: float) -> Kernel:
        r = [min(1, f * (a(s) - a(t)) / (1 - a(t))) for f in factor]
        return lambda canvas: independent(exchanged(canvas, lambda i: r[i], lambda i: 0.0))

    def corrector(s: float, duration: float) -> Kernel:
        g = sigma("log_linear", s)

        def moves(f: float) -> np.ndarray:  # of a chain on masked, known
            return expm(duration * g * np.array([[-f * odds(s), f * odds(s)], [1.0, -1.0]]))

        return lambda canvas: independent(
            exchanged(canvas, lambda i: moves(factor[i])[0, 1], lambda i: moves(1.0)[1, 0])
        )

    kernels = [predictor(*times[0:2]), predictor(*times[1:3])]
    for k in (2, 3):
        kernels += [predictor(*times[k : k + 2])] + [corrector(times[k + 1], 1.5 * (times[k] - times[k + 1]))] * 2
    denoiser = CHAIN if scale is None else scored(torch.tensor(scale, dtype=torch.float64)[:, None])
    pipeline = make_pipeline("predictor_corrector", {"corrector_steps": 2, "corrector_entry": 0.7}, denoiser)
    laws = follow(START, [*kernels, all_revealed])
    assert_follows(pipeline, laws)
    called = [times[i] for i in (0, 1, 2, 3, 3, 3, 4, 4, 4)]
    assert pipeline.scheduler.timesteps.tolist() == pytest.approx(called, rel=1e-5)
    if scale is None:  # correctors bring the law closer to the data
        without = follow(START, [predictor(t, s) for t, s in itertools.pairwise(times[:-1])] + [all_revealed])[-1]
        data = follow(START, [lambda c, i=i: drawn_at(c, {i}) for i in range(L)])[-1]
        assert np.abs(laws[-1] - data).sum() < 0.8 * np.abs(without - data).sum()


# ---- theta methods ----


def intensities(canvas: Canvas, i: int, t: float, factor: list[float]) -> np.ndarray:
    if canvas[i] != MASK:
        return np.zeros(V)
    return sigma("log_linear", t) * odds(t) * factor[i] * np.array(PROBS[canvas][i])


def leap_row(canvas: Canvas, i: int, jumps: np.ndarray, probability: float) -> list[float]:
    if not jumps.sum():
        return [float(y == canvas[i]) for y in range(V + 1)]
    return [*(probability * jumps / jumps.sum()), 1 - probability]


def theta_step(solver: str, theta: float, t: float, s: float, factor: list[float], last: bool) -> Kernel:
    """Both stages of a step: a sum over the canvas between them."""
    D = t - s
    t_star = t - theta * D
    exponential = lambda n: 1 - math.exp(-n)  # noqa: E731
    linear = lambda n: min(1.0, n)  # noqa: E731

    def kernel(canvas: Canvas) -> Iterator[tuple[Canvas, float]]:
        leap = exponential if solver == "theta_trapezoidal" else linear
        mu = [intensities(canvas, i, t, factor) for i in range(L)]
        rows = [leap_row(canvas, i, mu[i], leap(theta * D * mu[i].sum())) for i in range(L)]
        for between, p in independent(rows):
            star = [intensities(between, i, t_star, factor) for i in range(L)]
            if solver == "theta_trapezoidal":
                a1, a2 = 1 / (2 * theta * (1 - theta)), ((1 - theta) ** 2 + theta**2) / (2 * theta * (1 - theta))
                mixed = [np.clip(a1 * star[i] - a2 * mu[i], 0, None) * (between[i] == MASK) for i in range(L)]
                begin, duration = between, (1 - theta) * D
            else:
                mixed = [np.clip((1 - 1 / (2 * theta)) * mu[i] + star[i] / (2 * theta), 0, None) for i in range(L)]
                begin, duration = (between if last else canvas), D
            rows = []
            for i in range(L):
                if last and begin[i] == MASK:
                    rows.append(leap_row(begin, i, mixed[i] if mixed[i].sum() else star[i], 1.0))
                elif last or begin[i] != MASK:
                    rows.append(leap_row(begin, i, np.zeros(V), 0.0))
                else:
                    rows.append(leap_row(begin, i, mixed[i], leap(duration * mixed[i].sum())))
            for following, q in independent(rows):
                yield following, p * q

    return kernel


def theta_laws(solver: str, theta: float, M: int, scale: list[float] | None) -> np.ndarray:
    """After each step."""
    times = uniform_times(-(-M // 2))
    steps = list(itertools.pairwise(times))
    kernels = [
        theta_step(solver, theta, t, s, scale or [1.0] * L, last=M % 2 == 0 and k == M // 2 - 1)
        for k, (t, s) in enumerate(steps[: M // 2])
    ]
    return follow(START, kernels + [all_revealed] * (M % 2))


@pytest.mark.parametrize("M", [2, 5, 6])
@pytest.mark.parametrize("theta", [0.35, 0.5])
@pytest.mark.parametrize("solver", ["theta_trapezoidal", "theta_rk2"])
@pytest.mark.parametrize("scale", [None, [1.0, 0.4, 1.3]])
def test_theta_methods(solver: str, theta: float, M: int, scale: list[float] | None) -> None:
    denoiser = CHAIN if scale is None else scored(torch.tensor(scale, dtype=torch.float64)[:, None])
    ends = [k for k in range(M) if k % 2 or k == M - 1]
    assert_follows(make_pipeline(solver, {"theta": theta}, denoiser), theta_laws(solver, theta, M, scale), ends)


# ---- counts and times drawn before ----


@pytest.mark.parametrize("scale", [None, [1.0, 0.3, 2.0]])
def test_k_gillespie(scale: list[float] | None) -> None:
    """Under a normalised denoiser, Tweedie with exact counts in random order."""
    M = 2

    def step(k: int) -> Kernel:
        known = [round(L * a(time)) for time in uniform_times(M)[:-1]] + [L]

        def kernel(canvas: Canvas) -> Iterator[tuple[Canvas, float]]:
            rates = {i: (scale or [1.0] * L)[i] for i in range(L) if canvas[i] == MASK}
            for chosen, p in chosen_law(rates, known[k + 1] - known[k]).items():
                for following, q in drawn_at(canvas, chosen):
                    yield following, p * q

        return kernel

    laws = follow(START, [step(k) for k in range(M)])
    denoiser = CHAIN if scale is None else scored(torch.tensor(scale, dtype=torch.float64)[:, None])
    assert_follows(make_pipeline("k_gillespie", {}, denoiser), laws)
    tweedie = count_canvases(make_pipeline("tweedie", {}, denoiser, order="random", count="exact"), M)
    assert (p_value(tweedie[0], laws[0]) > FALSE_ALARM) == (scale is None)


def transition_law(M: int, weights: list[float]) -> Iterator[tuple[tuple[int, ...], float]]:
    """Step at which each position is revealed (or counts), from the weights of the times 1, ..., M."""
    share = [weight / sum(weights) for weight in weights[::-1]]
    for steps in itertools.product(range(M), repeat=L):
        if p := math.prod(share[k] for k in steps):
            yield steps, p


WEIGHTS = [
    ({}, [1.0, 1.0, 1.0, 1.0]),
    ({"weights": "linear_lambda"}, [3.0, 3.0, 2.0, 0.0]),
    ({"weights": "beta", "alpha": 2.0, "beta": 3.0}, [0.0, 4 / 27, 2 / 27, 0.0]),
    ({"weights": "beta", "alpha": 2.0, "beta": 3.0, "training_steps": 9}, [67.0, 109.0, 67.0, 13.0]),
]


@pytest.mark.parametrize(("options", "weights"), WEIGHTS)
def test_dndm(options: dict[str, Any], weights: list[float]) -> None:
    def at_their_times(steps: tuple[int, ...]) -> np.ndarray:
        return follow(START, [lambda c, k=k: drawn_at(c, {i for i in range(L) if steps[i] == k}) for k in range(4)])

    laws = sum((p * at_their_times(steps) for steps, p in transition_law(4, weights)), np.zeros((4, len(STATES))))
    assert_follows(make_pipeline("dndm", options), laws)


@pytest.mark.parametrize(("options", "weights"), WEIGHTS)
def test_dndm_k(options: dict[str, Any], weights: list[float]) -> None:
    """The times say how many are known; which ones, the scores of candidates and known tokens at such a time."""
    denoiser = LeaveOneOut(CHAIN.transition, INITIAL, L)
    denoiser.sharper = 0.3  # of a homogeneous chain two scores may be equal
    probs = table(denoiser)

    def keep(num: int) -> Kernel:
        def kernel(canvas: Canvas) -> Iterator[tuple[Canvas, float]]:
            for tokens, q in candidates(canvas, probs):
                full = placed(canvas, tokens)
                surest = sorted(range(L), key=lambda i: -probs[canvas][i][full[i]])[:num]
                yield tuple(full[i] if i in surest else MASK for i in range(L)), q

        return kernel

    def idle(canvas: Canvas) -> Iterator[tuple[Canvas, float]]:
        yield canvas, 1.0

    def by_counts(steps: tuple[int, ...]) -> np.ndarray:
        kernels = [keep(sum(step <= k for step in steps)) if k in steps else idle for k in range(3)]
        return follow(START, [*kernels, keep(L)])

    laws = sum((p * by_counts(steps) for steps, p in transition_law(4, weights)), np.zeros((4, len(STATES))))
    assert_follows(make_pipeline("dndm_k", options, denoiser), laws)


# ---- rules that look at the logits ----


def entropy(p_V: list[float]) -> float:
    return -sum(p * math.log(p) for p in p_V if p > 0)


PROXIES: dict[str, Callable[[list[float]], float]] = {
    "entropy": entropy,
    "confidence": lambda p_V: -max(p_V),
    "margin": lambda p_V: sorted(p_V)[-2] - max(p_V),
}


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.2])
def test_entropy_bounded(gamma: float, proxy: str) -> None:
    def kernel(canvas: Canvas) -> Iterator[tuple[Canvas, float]]:
        masked = sorted((i for i in range(L) if canvas[i] == MASK), key=lambda i: PROXIES[proxy](PROBS[canvas][i]))
        H = [entropy(PROBS[canvas][i]) for i in masked]
        k = max((k for k in range(1, len(H) + 1) if sum(H[:k]) - max(H[:k]) <= gamma), default=0)
        return drawn_at(canvas, masked[:k])

    pipeline = make_pipeline("entropy_bounded", {"gamma": gamma, "proxy": proxy})
    assert_follows(pipeline, follow(START, [kernel, kernel, all_revealed]))


@pytest.mark.parametrize(
    ("solver", "options", "enough"),
    [
        ("fast_dllm_threshold", {"threshold": 0.5}, lambda c, rank: c >= 0.5),
        ("fast_dllm_threshold", {"threshold": 0.9}, lambda c, rank: c >= 0.9),
        ("fast_dllm_factor", {"factor": 1.2}, lambda c, rank: c >= 1 - 1.2 / (rank + 1)),
    ],
)
@pytest.mark.parametrize("prediction_type", ["logits", "log_score"])
def test_fast_dllm(solver: str, options: Any, enough: Callable[[float, int], bool], prediction_type: str) -> None:
    def kernel(canvas: Canvas) -> Iterator[tuple[Canvas, float]]:
        for tokens, q in candidates(canvas):
            ranked = sorted(tokens, key=lambda i: -PROBS[canvas][i][tokens[i]])
            sure = [
                i for rank, i in enumerate(ranked, start=1) if rank == 1 or enough(PROBS[canvas][i][tokens[i]], rank)
            ]
            if solver == "fast_dllm_factor" and len(sure) == len(ranked) - 1:  # its authors' rule
                sure = ranked
            yield placed(canvas, {i: tokens[i] for i in sure}), q

    denoiser = CHAIN if prediction_type == "logits" else scored(0.4)
    assert_follows(make_pipeline(solver, options, denoiser), follow(START, [kernel, kernel, all_revealed]))
