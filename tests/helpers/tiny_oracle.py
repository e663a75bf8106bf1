"""An oracle small enough to enumerate (V = 3, L = 3), and textbook formulas for it, in float64.

Random tests draw 20,000 samples with a fixed seed and reject at p < 1e-6: with another seed, a right sampler fails one
test in a million.
"""

import itertools
import math
from collections import Counter

import numpy as np
import torch

from lsd_sampler import MaskedDiffusionPipeline, load_denoiser
from lsd_sampler.denoisers import MarkovDenoiser


V = L = MASK = 3
NOISE_EPS, SAMPLING_EPS = 1e-3, 1e-4
SIGMA_MIN, SIGMA_MAX = 0.05, 3.0
NUM_SAMPLES, FALSE_ALARM = 20_000, 1e-6
STATES = list(itertools.product(range(V + 1), repeat=L))
INDEX = {state: i for i, state in enumerate(STATES)}
ALL_MASKED = INDEX[(MASK,) * L]

ORACLE = load_denoiser("markov:V=3,L=3,seed=0")
assert isinstance(ORACLE, MarkovDenoiser)
PROBS = ORACLE(torch.tensor(STATES)).exp().numpy()  # (64, L, V)


def sigma_bar(noise: str, t: float) -> float:
    return -math.log(1 - (1 - NOISE_EPS) * t) if noise == "log_linear" else SIGMA_MIN ** (1 - t) * SIGMA_MAX**t


def sigma(noise: str, t: float) -> float:
    if noise == "log_linear":
        return (1 - NOISE_EPS) / (1 - (1 - NOISE_EPS) * t)
    return sigma_bar(noise, t) * math.log(SIGMA_MAX / SIGMA_MIN)


def alpha(noise: str, t: float) -> float:
    return math.exp(-sigma_bar(noise, t))


def tempered(state: int, beta: float) -> np.ndarray:
    p_LV = PROBS[state] ** beta
    return p_LV / p_LV.sum(-1, keepdims=True)


def chosen_law(weights: dict[int, float], n: int) -> dict[frozenset[int], float]:
    """Plackett-Luce: draw n positions one after another, without replacement, in proportion to their weights."""
    law: Counter[frozenset[int]] = Counter()
    for picks in itertools.permutations(weights, n):
        left, p = sum(weights.values()), 1.0
        for position in picks:
            p, left = p * weights[position] / left, left - weights[position]
        law[frozenset(picks)] += p
    return law


class ScoreOracle(MarkovDenoiser):
    """The oracle as a model of the concrete score, off by a constant factor."""

    time_conditioned = True

    def forward(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
        assert t is not None
        a = torch.tensor([alpha(self.noise_name, float(time)) for time in t[:1]], dtype=torch.float64)
        return super().forward(tokens) + torch.log(self.scale * a / (1 - a))


def count_canvases(pipeline: MaskedDiffusionPipeline, num_steps: int) -> np.ndarray:
    """How often each canvas was there after each step, of `NUM_SAMPLES`. `(steps, states)`, int64."""
    counts = np.zeros((num_steps, len(STATES)), dtype=np.int64)

    def count(pipeline: MaskedDiffusionPipeline, k: int, t: torch.Tensor, tensors: dict[str, torch.Tensor]) -> None:
        index = (tensors["sample"] * (V + 1) ** torch.arange(L - 1, -1, -1)).sum(1)
        counts[k] = torch.bincount(index, minlength=len(STATES)).numpy()

    pipeline(
        num_samples=NUM_SAMPLES,
        num_inference_steps=num_steps,
        generator=torch.Generator().manual_seed(1),
        output_type="ids",
        callback_on_step_end=count,
    )
    return counts
