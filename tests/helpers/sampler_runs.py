"""Generations of an LSDScheduler with a network that does not look at the canvas; numbers to put into one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.chosen_positions import make_choice, random_weights, steps_with

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.dependence import Dependence
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps, StepErrorTable
from lsd_sampler.sampling.orders import ORDERS
from lsd_sampler.sampling.solvers import SOLVERS, OwnStep


MASK = 5
REVEALING = [name for name in SOLVERS.names() if not isinstance(SOLVERS[name], OwnStep)]
EACH_SOLVER = pytest.mark.parametrize("solver", REVEALING)
EACH_ORDER = pytest.mark.parametrize("order", ORDERS.names())
EACH_COUNT = pytest.mark.parametrize("count", ["exact", "bernoulli"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fixed_model(canvas: torch.Tensor, columns: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Callable:
    """A network whose output does not depend on the canvas: logits for each row, the same in every batch."""
    rows = [torch.randn(*canvas.shape[1:], columns, generator=seeded(seed + i)) for i in range(len(canvas))]
    logits = torch.stack(rows).to(dtype)
    return lambda sample: logits


def seen(scheduler: LSDScheduler, model_output: Any) -> dict[str, Any]:
    """What a step sees of a network whose rows do not depend on their own token."""
    shadow = {"shadow_output": model_output} if scheduler.reads_shadow else {}
    return {"model_output": model_output, **shadow}


def generate(
    scheduler: LSDScheduler, model: Callable, canvas: torch.Tensor, num_steps: int, **kwargs: Any
) -> list[torch.Tensor]:
    """The canvas before, between and after the steps."""
    scheduler.set_timesteps(num_steps)
    path = [canvas]
    for t in scheduler.timesteps:
        step = scheduler.step(**seen(scheduler, model(path[-1])), timestep=t, sample=path[-1], **kwargs)
        path.append(step.prev_sample)
    return path


def revealed_under(
    scheduler: LSDScheduler, laws: list[list[list[float]]], num_steps: int
) -> tuple[list[list[int]], torch.Tensor]:
    """The positions that each step reveals, for a network whose laws in call k are `laws[k]`, and the last canvas."""
    scheduler.set_timesteps(num_steps)
    sample, found = torch.full((1, len(laws[0])), scheduler.config.mask_token_id), []
    for t, law in zip(scheduler.timesteps, laws, strict=False):
        logits = torch.tensor(law, dtype=torch.float64).log()[None]
        out = scheduler.step(logits, t, sample, temperature=0.0)
        found.append(out.transfer_index[0].nonzero()[:, 0].tolist())
        sample = out.prev_sample
    return found, sample


def learned(M: int, scheduler: LSDScheduler) -> LearnedSampler:
    return LearnedSampler({M: LearnedSteps.plain(scheduler.steps_for(M).timesteps)})


def with_choices(scheduler: LSDScheduler, *numbers: int) -> LSDScheduler:
    """The same scheduler; the order `adaptive` gets a choice of positions for these numbers of calls."""
    if scheduler.config.order == "adaptive":
        choices = [make_choice([*[0.4] * (M - 1), 1], free_below=0.1, weights=random_weights(M)) for M in numbers]
        scheduler.set_learned_sampler(
            LearnedSampler({len(c.shares): steps_with(c) for c in choices}, dependence=near_by())
        )
    return scheduler


def near_by() -> Dependence:
    """A dependence that fits texts of any length."""
    return Dependence(torch.tensor([[0.0, 0.8, 0.4], [0.0, 0.5, 0.1]], dtype=torch.float64), "offset")


def uneven(M: int = 3) -> LearnedSampler:
    steps = (torch.linspace(1, 0.1, M + 1) ** 2, torch.linspace(0.5, 1.5, M), torch.linspace(2, 0.7, M))
    return LearnedSampler({M: LearnedSteps(*(x.double() for x in steps))})


def step_error(num_states: int = 8, length: int = 16) -> StepErrorTable:
    table = torch.rand(num_states, length, generator=seeded(), dtype=torch.float64).sort(0, descending=True).values
    return StepErrorTable(table, torch.arange(num_states) * (length // num_states))
