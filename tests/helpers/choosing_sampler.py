"""A learned choice of positions, and the records of the run that learned it; all made by hand."""

from dataclasses import replace
from typing import Any

import torch

from lsd_sampler.sampling.dependence import Dependence
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps
from lsd_sampler.sampling.position_choice import PositionChoice


F64 = torch.float64
LENGTH = 4


def choosing_steps(
    weights: list[float], shares: list[float], free_below: float = 0.0, budget: str = "position_shares"
) -> LearnedSteps:
    choice = PositionChoice(
        torch.tensor(weights, dtype=F64), torch.tensor(free_below, dtype=F64), torch.tensor(shares, dtype=F64), budget
    )
    times = torch.linspace(1, 0.25, len(shares) + 1, dtype=F64)
    return replace(LearnedSteps.plain(times), choice=choice)


def choosing_sampler(dependence: Dependence | None = None) -> LearnedSampler:
    """For 2 and 3 calls, each with a budget of its own kind, and none of the numbers alike."""
    steps = {
        3: choosing_steps([0.5, 0.125, 0.75, 0, 0.0625], [0.25, 0.375, 1], 0.03, "entropy_shares"),
        2: choosing_steps([0, 0, 0, 0, 1], [0.4375, 1]),
    }
    learned = LearnedSampler(steps, dependence=dependence or offset_dependence())
    learned.check("learned")
    return learned


def offset_dependence() -> Dependence:
    return Dependence(torch.tensor([[0.0, 0.5, 0.25, 0.0625], [0.0, 0.75, 0.125, 0.0]], dtype=F64), "offset")


def candidate(
    nfe: int, name: str, nats: float, difference: float, chosen: bool = False, **more: Any
) -> dict[str, Any]:
    record = {
        "event": "position_candidate", "nfe": nfe, "name": name, "weights": [0, 0, 0, 0, 1], "free_below": 0.0,
        "budget": "position_shares", "shares": [0.5, 1.0], "nats": nats, "standard_error": 0.25,
        "difference": difference, "difference_error": 0.125, "chosen": chosen,
    }  # fmt: skip
    return {**record, **more}


RECORDS: list[dict[str, Any]] = [
    {"event": "dependence", "layout": "offset", "num_buckets": 2, "mean": 0.28125, "network_calls": 34},
    candidate(3, "halton", 9.5, 0.0),
    candidate(3, "found", 8.75, -0.75, True, weights=[0.5, 0.125, 0.75, 0, 0.0625], budget="entropy_shares"),
    candidate(2, "random", 11.5, 0.5, weights=[0, 0, 0, 1, 0]),
    candidate(2, "halton", 11.0, 0.0, True),
    {"event": "schedule", "nfe": 3, "known_after_step": [0.25, 0.625, 1.0], "nats": 8.75, "objective": "likelihood"},
    {"event": "schedule", "nfe": 2, "known_after_step": [0.5, 1.0], "nats": 11.0, "objective": "likelihood"},
    {"event": "variety", "nfe": 3, "fills_differ": 0.125, "fill_differs_from_truth": 0.25, "sequences": 96},
    {"event": "variety", "nfe": 2, "fills_differ": 0.3125, "fill_differs_from_truth": 0.375, "sequences": 96},
    {"event": "done", "network_calls": 340, "seconds": 12.0},
]
