"""The law of the final sample, on an oracle small enough to enumerate (V = 3, L = 3).

What the samples are compared with is computed here, in float64, from textbook formulas: once as a sum over orders,
numbers of reveals and tokens, and, where the sampler is a product of one-step kernels, again by products of 64 x 64
matrices.

Random tests draw 20,000 samples with a fixed seed and reject at p < 1e-6: with another seed, a right sampler fails one
test in a million.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from helpers.goodness_of_fit import p_value
from helpers.tiny_oracle import (
    ALL_MASKED,
    FALSE_ALARM,
    INDEX,
    MASK,
    NOISE_EPS,
    NUM_SAMPLES,
    ORACLE,
    PROBS,
    SAMPLING_EPS,
    SIGMA_MAX,
    SIGMA_MIN,
    STATES,
    L,
    ScoreOracle,
    V,
    alpha,
    chosen_law,
    count_canvases,
    sigma,
    sigma_bar,
    tempered,
)  # fmt: skip

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
from lsd_sampler.sampling.noise import make_noise_schedule
from lsd_sampler.sampling.orders import ORDERS
from lsd_sampler.sampling.solvers import SOLVERS, OwnStep


@dataclass(frozen=True)
class Case:
    """A sampler, as a user describes it."""

    solver: str
    order: str = "random"
    count: str = "bernoulli"
    phi: tuple[float, ...] = (1.0, 1.0)
    beta: tuple[float, ...] = (1.0, 1.0)
    noise: str = "log_linear"
    grid: tuple[float, ...] | None = None
    prediction_type: str = "logits"
    scale: float = 1.0  # of a score that is off by a constant factor
    confidence_temperature: float = 1.0

    @property
    def M(self) -> int:
        return len(self.phi)

    @property
    def times(self) -> list[float]:
        M = self.M
        return list(self.grid or [1 + (SAMPLING_EPS - 1) * k / M for k in range(M + 1)])


def plain(solver: str, order: str, count: str, M: int) -> Case:
    return Case(solver, order, count, phi=(1.0,) * M, beta=(1.0,) * M)


# ---- textbook quantities ----


def reveal_probabilities(case: Case) -> list[float]:
    """Of one masked position in each step, given that it is still masked; the last step reveals all."""
    probabilities = []
    for k, (t, s) in enumerate(itertools.pairwise(case.times)):
        a_t, a_s = alpha(case.noise, t), alpha(case.noise, s)
        euler = (t - s) * sigma(case.noise, t) * a_t / (1 - a_t)
        r = {"euler": euler, "tweedie": (a_s - a_t) / (1 - a_t)}[case.solver]
        probabilities.append(min(1.0, case.phi[k] * r))
    return [*probabilities[:-1], 1.0]


def jump_probabilities(case: Case) -> list[float]:
    """The same for a Bernoulli sampler whose score is off by a factor."""
    return [min(1.0, case.scale * r) for r in reveal_probabilities(case)[:-1]] + [1.0]


# ---- first computation: sum over orders, numbers of reveals, tokens ----


def exact_counts(case: Case) -> list[int]:
    """Reveals in each step when `round(alpha L)` tokens are known after it; 1 - alpha shrinks as the steps reveal."""
    masked, known = 1 - alpha(case.noise, case.times[0]), [0]
    for r in reveal_probabilities(case)[:-1]:
        masked *= 1 - r
        known.append(round(L * (1 - masked)))
    return [b - a for a, b in itertools.pairwise([*known, L])]


def count_law(case: Case) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Probability of each sequence of numbers of reveals: multinomial for independent reveals."""
    if case.count == "exact":
        yield 1.0, tuple(exact_counts(case))
        return
    survival, step_law = 1.0, []
    for r in jump_probabilities(case):
        step_law.append(survival * r)
        survival *= 1 - r
    for counts in itertools.product(range(L + 1), repeat=case.M):
        if sum(counts) == L:
            ways = math.factorial(L) / math.prod(math.factorial(n) for n in counts)
            yield ways * math.prod(q**n for q, n in zip(step_law, counts, strict=True)), counts


def low_discrepancy_orders(length: int) -> Iterator[tuple[Fraction, Fraction, tuple[int, ...]]]:
    """The order in which a shifted van der Corput sequence (base 2, Gray code) visits the cells, by range of shifts.

    It is constant between the shifts at which some point sits on the edge of a cell; all in exact arithmetic.
    """
    points = []
    for n in range(4 * length):
        gray = n ^ (n >> 1)
        points.append(sum(Fraction((gray >> bit) & 1, 2 ** (bit + 1)) for bit in range(8)))
    edges = sorted({(Fraction(j, length) - x) % 1 for x in points for j in range(length)} | {Fraction(0), Fraction(1)})
    for low, high in itertools.pairwise(edges):
        visited = [math.floor(((x + (low + high) / 2) % 1) * length) for x in points]
        yield low, high, tuple(dict.fromkeys(visited))


def order_law(order: str) -> dict[tuple[int, ...], float]:
    if order in ("halton", "adaptive"):  # which is the same as long as nothing is learned
        law: Counter[tuple[int, ...]] = Counter()
        for low, high, cells in low_discrepancy_orders(L):
            law[cells] += float(high - low)
        return law
    if order == "halton_maskgit":  # first visits of 1/2, 1/4, 3/4, begun anywhere
        cells = (1, 0, 2)
        return {cells[turn:] + cells[:turn]: 1 / L for turn in range(L)}
    if order == "bisection":  # the middle, then the two ends in any order
        return {(1, 0, 2): 0.5, (1, 2, 0): 0.5}
    # at this length all positions are one level of `dus`
    permutations = list(itertools.permutations(range(L)))
    return {permutation: 1 / len(permutations) for permutation in permutations}


def reveal(law: dict[int, float], positions: tuple[int, ...], beta: float) -> dict[int, float]:
    """Law of the canvas after independent draws at these positions."""
    after: Counter[int] = Counter()
    for state, p in law.items():
        p_LV = tempered(state, beta)
        for tokens in itertools.product(range(V), repeat=len(positions)):
            canvas = list(STATES[state])
            for position, token in zip(positions, tokens, strict=True):
                canvas[position] = token
            after[INDEX[tuple(canvas)]] += p * math.prod(p_LV[i, y] for i, y in zip(positions, tokens, strict=True))
    return after


def law_by_orders(case: Case) -> np.ndarray:
    final = np.zeros(len(STATES))
    for p_order, order in [(p, o) for o, p in order_law(case.order).items()]:
        for p_counts, counts in count_law(case):
            law, known = {ALL_MASKED: 1.0}, 0
            for n, beta in zip(counts, case.beta, strict=True):
                law, known = reveal(law, order[known : known + n], beta), known + n
            for state, p in law.items():
                final[state] += p_order * p_counts * p
    return final


# ---- orders that look at the logits: a Markov chain on the canvases ----


def certainty(order: str, p_V: np.ndarray, token: int) -> float:
    """The score by which an order chooses a position, where `token` was drawn."""
    if order == "confidence":
        return math.log(p_V[token])
    if order == "probability":
        return float(p_V[token])
    if order == "margin":
        return float(np.diff(np.sort(p_V))[-1])
    return sum(p * math.log(p) for p in p_V if p > 0)


def surest_step(order: str, law: dict[int, float], n: int, beta: float, temperature: float) -> dict[int, float]:
    """Candidates everywhere; the n positions kept have the largest `score + temperature * Gumbel`."""
    after: Counter[int] = Counter()
    for state, p in law.items():
        p_LV, canvas = tempered(state, beta), STATES[state]
        seen_LV = PROBS[state]  # the temperature of the draws says nothing about how sure the denoiser is
        masked = [i for i in range(L) if canvas[i] == MASK]
        for tokens in itertools.product(range(V), repeat=len(masked)):
            candidate = dict(zip(masked, tokens, strict=True))
            p_tokens = math.prod(p_LV[i, y] for i, y in candidate.items())
            scores = {i: certainty(order, seen_LV[i], y) for i, y in candidate.items()}
            weights = {i: math.exp(score / temperature) for i, score in scores.items()}
            for chosen, p_chosen in chosen_law(weights, n).items():
                kept = tuple(candidate[i] if i in chosen else canvas[i] for i in range(L))
                after[INDEX[kept]] += p * p_tokens * p_chosen
    return after


def law_by_certainty(case: Case) -> np.ndarray:
    final = np.zeros(len(STATES))
    for p_counts, counts in count_law(case):
        law = {ALL_MASKED: 1.0}
        for k, (n, beta) in enumerate(zip(counts, case.beta, strict=True)):
            # the last step keeps every candidate, at any temperature
            temperature = case.confidence_temperature * (1 - k / (case.M - 1)) or 1.0
            law = surest_step(case.order, law, n, beta, temperature)
        for state, p in law.items():
            final[state] += p_counts * p
    return final


def law_by_enumeration(case: Case) -> np.ndarray:
    looks = ORDERS[case.order].looks_at_logits and case.order != "adaptive"
    return law_by_certainty(case) if looks else law_by_orders(case)


# ---- second computation: products of one-step kernels ----


def position_kernel(case: Case, k: int, state: int) -> np.ndarray:
    """Law of each position after step k, mask last, `(L, V + 1)`: from the score, as SEDD's own samplers do."""
    t, s = case.times[k : k + 2]
    a = alpha(case.noise, t)
    rows = np.eye(V + 1)[list(STATES[state])]
    for i in range(L):
        if STATES[state][i] != MASK:
            continue
        score = case.phi[k] * (case.scale * a / (1 - a) * PROBS[state, i]) ** case.beta[k]
        if case.prediction_type == "logits":  # normalised: beta is a temperature and leaves the rate alone
            score = case.phi[k] * a / (1 - a) * tempered(state, case.beta[k])[i]
        if case.solver == "euler":
            rates = np.append(score, -score.sum())
            rows[i] = np.eye(V + 1)[MASK] + (t - s) * sigma(case.noise, t) * rates
        else:  # staggered score times transposed transition (appendix of the SEDD paper)
            ds = sigma_bar(case.noise, t) - sigma_bar(case.noise, s)
            with_own = np.append(score, 1.0)
            staggered = math.exp(ds) * with_own
            staggered[MASK] += (1 - math.exp(ds)) * with_own.sum()
            transition = math.exp(-ds) * np.eye(V + 1)[MASK] + (1 - math.exp(-ds))
            rows[i] = staggered * transition
        if k == case.M - 1:
            rows[i, MASK] = 0  # final denoising: the mask column is dropped
    rows = rows.clip(0)
    return rows / rows.sum(-1, keepdims=True)


def law_by_matrices(case: Case) -> np.ndarray:
    law = np.eye(len(STATES))[ALL_MASKED]
    for k in range(case.M):
        kernel = np.stack(
            [np.einsum("a,b,c->abc", *position_kernel(case, k, state)).ravel() for state in range(len(STATES))]
        )
        law = law @ kernel
    return law


# ---- draws ----


def make_pipeline(case: Case) -> MaskedDiffusionPipeline:
    scheduler = LSDScheduler(
        mask_token_id=MASK,
        prediction_type=case.prediction_type,
        noise_schedule=case.noise,
        noise_eps=NOISE_EPS,
        sigma_min=SIGMA_MIN,
        sigma_max=SIGMA_MAX,
        solver=case.solver,
        order=case.order,
        count=case.count,
        sampling_eps=SAMPLING_EPS,
        confidence_temperature=case.confidence_temperature,
    )
    if case.grid or {*case.phi, *case.beta} != {1.0}:
        numbers = (torch.tensor(x, dtype=torch.float64) for x in (case.times, case.phi, case.beta))
        scheduler.set_learned_sampler(LearnedSampler({case.M: LearnedSteps(*numbers)}))
    denoiser = ORACLE
    if case.prediction_type == "log_score":
        denoiser = ScoreOracle(ORACLE.transition, ORACLE.initial, L)
        denoiser.scale, denoiser.noise_name = case.scale, case.noise
    pipeline = MaskedDiffusionPipeline(denoiser, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(case: Case) -> np.ndarray:
    """How often each canvas came out, of `NUM_SAMPLES`."""
    return count_canvases(make_pipeline(case), case.M)[-1]


def assert_drawn_from(case: Case, law: np.ndarray) -> None:
    assert math.isclose(law.sum(), 1, abs_tol=1e-12)
    assert p_value(draw(case), law) > FALSE_ALARM


# ---- the tests ----

REVEALING = [name for name in SOLVERS.names() if not isinstance(SOLVERS[name], OwnStep)]
PLAIN = [
    plain(solver, order, count, M)
    for solver in REVEALING
    for order in ORDERS.names()
    for count in ("exact", "bernoulli")
    for M in (2, 3)
]
UNEQUAL = {"grid": (1.0, 0.7, 0.45, 1e-4), "phi": (1.0, 1.0, 1.0), "beta": (1.0, 1.0, 1.0)}
GEOMETRIC = [
    Case(solver, order, count, noise="geometric", **UNEQUAL)
    for solver in REVEALING
    for order, count in (("random", "bernoulli"), ("random", "exact"), ("halton", "bernoulli"))
]
LEARNED = [
    Case("tweedie", order, count, phi=(1.7, 0.6, 1.3), beta=(1.5, 0.8, 2.0), grid=(1.0, 0.7, 0.45, 1e-4))
    for order in ORDERS.names()
    for count in ("exact", "bernoulli")
] + [Case("euler", phi=(1.7, 5.0, 1.0), beta=(1.5, 0.0, 2.0), noise="geometric", grid=(1.0, 0.6, 0.3, 1e-4))]
# draws that are off make the order matter although the oracle has no error
LEARNED += [
    Case("tweedie", order, "exact", (1.0,) * 3, beta=(3.0, 0.0, 4.0), confidence_temperature=0.05)
    for order in ("confidence", "margin", "entropy")
]
SCORES = [
    Case(solver, order, count, prediction_type="log_score", scale=scale, **UNEQUAL)
    for solver, order, count, scale in (
        ("tweedie", "random", "bernoulli", 1.0),
        ("tweedie", "random", "bernoulli", 0.4),
        ("euler", "random", "bernoulli", 2.5),
        ("tweedie", "random", "exact", 0.4),
        ("tweedie", "halton", "bernoulli", 0.4),
        ("tweedie", "confidence", "bernoulli", 1.0),
        ("euler", "confidence", "bernoulli", 1.6),
        ("tweedie", "confidence", "exact", 1.6),
    )
]


def name(case: Case) -> str:
    parts = [case.solver, case.order, case.count, f"M{case.M}"]
    return "-".join(parts + ([f"x{case.scale}"] if case.prediction_type == "log_score" else []))


@pytest.mark.parametrize("case", PLAIN, ids=name)
def test_plain_samplers(case: Case) -> None:
    assert_drawn_from(case, law_by_enumeration(case))


@pytest.mark.parametrize("case", GEOMETRIC, ids=name)
def test_geometric_noise(case: Case) -> None:
    assert_drawn_from(case, law_by_enumeration(case))


@pytest.mark.parametrize("case", LEARNED, ids=name)
def test_coefficients(case: Case) -> None:
    assert_drawn_from(case, law_by_enumeration(case))


@pytest.mark.parametrize("case", SCORES, ids=name)
def test_unnormalised_score(case: Case) -> None:
    """A score that is off by a factor changes how many positions jump, not what they jump to."""
    assert_drawn_from(case, law_by_enumeration(case))


@pytest.mark.parametrize("solver", REVEALING)
def test_log_score_coefficients_of_a_score(solver: str) -> None:
    """beta of an unnormalised score moves rates too, differently at each canvas: matrices only."""
    case = replace(SCORES[0], solver=solver, beta=(0.7, 1.6, 1.0), phi=(1.2, 0.8, 1.0), scale=0.9)
    assert_drawn_from(case, law_by_matrices(case))


@pytest.mark.parametrize(
    "case",
    [c for c in PLAIN + GEOMETRIC + LEARNED + SCORES if (c.order, c.count) == ("random", "bernoulli")],
    ids=name,
)
def test_both_computations_agree(case: Case) -> None:
    np.testing.assert_allclose(law_by_enumeration(case), law_by_matrices(case), rtol=0, atol=1e-10)


def test_one_token_at_a_time_is_exact() -> None:
    """The oracle has no error, so a sampler that reveals one token a step draws from the chain itself."""
    case = plain("tweedie", "random", "exact", 3)
    assert exact_counts(case) == [1, 1, 1]
    P, start = ORACLE.transition.numpy(), ORACLE.initial.numpy()
    chain = np.zeros(len(STATES))
    for x in itertools.product(range(V), repeat=L):
        chain[INDEX[x]] = start[x[0]] * P[x[0], x[1]] * P[x[1], x[2]]
    for order in ("random", "halton"):
        np.testing.assert_allclose(law_by_enumeration(replace(case, order=order)), chain, rtol=0, atol=1e-10)


def test_the_test_has_power() -> None:
    """Laws that a wrong sampler would follow are told apart by the same number of samples."""
    right = plain("tweedie", "random", "bernoulli", 2)
    observed = draw(right)
    wrong = [replace(right, order="confidence"), replace(right, count="exact"), replace(right, phi=(1.6, 1.0))]
    wrong += [replace(right, beta=(1.5, 1.0)), plain("tweedie", "random", "bernoulli", 3)]
    for case in wrong:
        assert p_value(observed, law_by_enumeration(case)) < FALSE_ALARM, case
    by_margin, by_entropy = LEARNED[-2:]
    for order in ("random", "entropy", "confidence"):
        assert p_value(draw(by_margin), law_by_enumeration(replace(by_entropy, order=order))) < FALSE_ALARM, order


@pytest.mark.parametrize("case", PLAIN + GEOMETRIC, ids=name)
def test_reveal_probabilities(case: Case) -> None:
    noise = make_noise_schedule(case.noise, noise_eps=NOISE_EPS, sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX)
    times = torch.tensor(case.times, dtype=torch.float64)
    ours = SOLVERS[case.solver].reveal_probability(noise, times[:-1], times[1:]).clamp(max=1)
    assert ours[:-1].tolist() == pytest.approx(reveal_probabilities(case)[:-1], abs=1e-10)


@pytest.mark.parametrize("case", [c for c in PLAIN + SCORES if c.count == "bernoulli" and c.M == 3], ids=name)
def test_numbers_of_reveals(case: Case) -> None:
    """Under `bernoulli` the numbers of reveals are multinomial, whichever positions the order picks."""
    left = [torch.full((NUM_SAMPLES,), L)]
    make_pipeline(case)(
        num_samples=NUM_SAMPLES,
        num_inference_steps=case.M,
        generator=torch.Generator().manual_seed(1),
        callback_on_step_end=lambda pipeline, k, t, tensors: left.append((tensors["sample"] == MASK).sum(1)),
    )
    counts = Counter(zip(*((a - b).tolist() for a, b in itertools.pairwise(left)), strict=True))
    law = {n: p for p, n in count_law(case)}
    assert counts.keys() <= law.keys()
    assert p_value(np.array([counts[n] for n in law]), np.array(list(law.values()))) > FALSE_ALARM


@pytest.mark.parametrize("length", [2, 3, 4, 5, 7, 8, 12])
def test_halton_order_for_every_shift(length: int) -> None:
    for low, high, cells in low_discrepancy_orders(length):
        shift = torch.tensor([[float(low + high) / 2, 0.5]], dtype=torch.float64)
        keys = ORDERS["halton"].keys(torch.zeros(1, length, dtype=torch.float64), shift, (length,))
        assert tuple(keys.argsort().tolist()[0]) == cells


def test_solvers_differ_under_geometric_noise_only() -> None:
    for noise, equal in (("log_linear", True), ("geometric", False)):
        rates = [reveal_probabilities(Case(solver, noise=noise, **UNEQUAL))[0] for solver in ("euler", "tweedie")]
        assert math.isclose(*rates, abs_tol=1e-12) == equal
