"""Figures for searches, whose costs are known."""

import math
import zlib
from collections.abc import Callable
from dataclasses import replace

import torch

from lsd_sampler.training.position_candidates import Candidate, Measured


L = 16
RANDOM = (0.0, 0.0, 0.0, 1.0, 0.0)
GREEDY = (0.0, 1.0, 0.3, 0.01, 0.0)
UNIFORM = (1 / 3, 1 / 2, 1.0)
SIMPLE = Candidate("random", UNIFORM, RANDOM)
LOOKS = Candidate("table", UNIFORM, GREEDY, 0.1)


def number_of(candidate: Candidate, *others: object) -> int:
    """A number that looks random and is always the same."""
    return zlib.crc32(repr((replace(candidate, name=""), *others)).encode())


class FakeFigure:
    """Costs that a function of the candidate says, with noise of each sequence, and of each candidate if asked for."""

    def __init__(self, cost: Callable[[Candidate], float], num: int = 128, noise: float = 0.0):
        self.cost, self.num_fit, self.num_check, self.noise = cost, num, num, noise
        self.num_first, self.spent = min(16, num), 0
        self.asked: list[tuple[Candidate, str, int]] = []

    def __call__(self, candidate: Candidate, part: str, num: int | None = None) -> Measured:
        most = self.num_fit if part == "fit" else self.num_check
        num = most if num is None else min(num, most)
        self.spent += num * len(candidate.shares)
        self.asked.append((candidate, part, num))
        shared = torch.randn(most, generator=torch.Generator().manual_seed(len(part))).double()
        own = torch.Generator().manual_seed(number_of(candidate, part))
        costs = self.cost(candidate) + 5 * shared + self.noise * torch.randn(most, generator=own).double()
        left = L * torch.cumprod(1 - torch.tensor(candidate.shares, dtype=torch.float64), 0)
        known, opened = 1 - left / L, torch.cat([torch.tensor([float(L)], dtype=torch.float64), left[:-1]])
        return Measured(costs[:num], known, opened)


def distance(wanted: tuple[int, ...]) -> Callable[[Candidate], float]:
    """How far the numbers of tokens of each call are from those wanted; looking at the logits saves a nat."""

    def cost(c: Candidate) -> float:
        left, total = L, 0.0
        for share, number in zip(c.shares, wanted, strict=True):
            taken = math.ceil(share * left - 1e-9)
            total += abs(taken - number)
            left -= taken
        return total - (not c.is_simple)

    return cost
