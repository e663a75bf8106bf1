"""A small learned sampler and its files, for the tests that damage them."""

import functools
import hashlib
import json
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from helpers.chosen_positions import make_choice, steps_with

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.dependence import Dependence
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps, StepErrorTable


CONFIG_NAME = LSDScheduler.config_name
_PARTS = ("timesteps", "score_coefficients", "log_score_coefficients")
# nothing is left at its default, so that no entry can be lost unnoticed (other corruptions have no order)
OPTIONS = {
    "mask_token_id": 9, "prediction_type": "log_score", "noise_schedule": "geometric", "noise_eps": 2e-3,
    "sigma_min": 1e-3, "sigma_max": 10.0, "time_base": 2.0, "time_exponential": 50.0, "solver": "euler",
    "order": "halton", "count": "bernoulli", "schedule": "cosine", "sampling_eps": 1e-3, "confidence_temperature": 0.5,
    "block_length": 16, "vocab_size": 9, "corruption": "absorbing", "rate_sigma": 5.0, "q_sigma": 256.0,
    "draws": "exact", "solver_options": None, "certainty": "tempered", "minimal_gap": 0,
}  # fmt: skip
# what the others leave no choice in
AT_DEFAULT = {"corruption", "draws", "minimal_gap", "solver_options"}
# which tokens come out does not depend on these
DESCRIPTIVE = {"base_model", "base_model_revision", "format_version", "learned", "tensors_sha256"}


class Files(NamedTuple):
    """The contents of both files."""

    config: bytes
    tensors: bytes

    def with_checksum(self) -> "Files":
        """As if the tensors had been saved like this."""
        config = {**json.loads(self.config), "tensors_sha256": hashlib.sha256(self.tensors).hexdigest()}
        return self._replace(config=json.dumps(config).encode())


@functools.cache
def original() -> LSDScheduler:
    """Learned for 2 and 4 steps, and with a table for 1 to 3."""
    steps = {
        M: LearnedSteps(*(torch.linspace(a, b, n).double() for a, b, n in ((1, 0.1, M + 1), (0.5, 1.5, M), (2, 1, M))))
        for M in (2, 4)
    }
    table = torch.tensor([[3.0, 2.5, 2.0, 1.5, 1.0], [0.0, 1.0, 0.9, 0.8, 0.7], [0.0, 0.0, 0.0, 0.2, 0.1]])
    scheduler = LSDScheduler(**OPTIONS, base_model="owner/model")
    scheduler.set_learned_sampler(LearnedSampler(steps, StepErrorTable(table.double(), torch.tensor([0, 1, 3]))))
    return scheduler


@functools.cache
def choosing() -> LSDScheduler:
    """Learned which positions to reveal in 2 calls."""
    choice = make_choice([0.4, 1.0], "entropy_shares", 0.1, redundancy=1, gain=0.3, halton=0.5)
    kappa = torch.tensor([[[0.0, 0.5], [0.5, 0.0]]], dtype=torch.float64)
    scheduler = LSDScheduler(**OPTIONS | {"order": "adaptive", "count": "exact"}, base_model="owner/model")
    scheduler.set_learned_sampler(LearnedSampler({2: steps_with(choice)}, dependence=Dependence(kappa, "matrix")))
    return scheduler


@contextmanager
def bounded(seconds: int = 30, megabytes: int = 100) -> Iterator[None]:
    """What takes longer, or needs more address space, fails."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise AssertionError(f"not done after {seconds} s")

    handler, limits = signal.signal(signal.SIGALRM, stop), resource.getrlimit(resource.RLIMIT_AS)
    signal.alarm(seconds)
    if sys.platform == "linux":
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)


def options(scheduler: LSDScheduler) -> dict[str, Any]:
    """What its config says, as far as it decides which tokens come out."""
    return {key: scheduler.config[key] for key in OPTIONS}


def numbers(learned: LearnedSampler) -> dict[str, torch.Tensor]:
    """What it learned, by the names in its file."""
    steps = {f"nfe_{M}.{part}": getattr(steps, part) for M, steps in learned.steps.items() for part in _PARTS}
    for M, choice in ((M, part.choice) for M, part in learned.steps.items() if part.choice is not None):
        steps |= {f"nfe_{M}.choice_weights": choice.weights, f"nfe_{M}.free_below": choice.free_below}
        steps |= {f"nfe_{M}.{choice.budget}": choice.shares}
    if learned.dependence is not None:
        steps |= {f"kappa.{learned.dependence.layout}": learned.dependence.kappa}
    table = learned.step_error
    return steps | ({"step_error.table": table.table, "step_error.grid": table.grid} if table else {})
