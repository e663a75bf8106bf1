import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..canvas import StepInput
from ..plan import StepPlan
from .options import Option
from .own_step import OwnStep, exchange


_APART = 1e-6
"""Relative distance between calls at the same time, because `timesteps` must decrease strictly."""


class PredictorCorrector(OwnStep):
    """Tweedie's step, then steps of a process that leaves the law at its end as it is (predictor-corrector,
    https://huggingface.co/papers/2205.14987, section 4.4): known tokens are masked at the rate of noise g, masked ones
    become y at rate `g * score_y`. One call a step, and one for each corrector.

    Each step that begins at or below the time `corrector_entry`, except for the last, is followed by `corrector_steps`
    correctors, each `corrector_scale` times as long. All are within the M calls, so there are fewer steps than calls;
    if the numbers do not fit, the first correctors are left out. Each position follows the exact law of leaving its
    state and coming back, so a corrector of any length keeps the share of masks. Correctors pay if steps are small and
    calls are many; few calls are better spent on steps.
    """

    name = "predictor_corrector"
    options = {
        "corrector_steps": Option(10, 1),
        "corrector_entry": Option(0.1, 0, 1),
        "corrector_scale": Option(1.5, 0),
    }

    def calls(
        self, grid: Callable[[int], torch.Tensor], num_calls: int, options: Mapping[str, Any]
    ) -> tuple[torch.Tensor, list[int]]:
        steps, correctors = _fit(grid, num_calls, options["corrector_steps"], options["corrector_entry"])
        times, places, now = [], [], steps[0]
        for num, s in zip(correctors, steps[1:], strict=True):
            times += [now, *(s * (1 - _APART * j) for j in range(num))]
            places += range(num + 1)
            now = s * (1 - _APART * num)
        return torch.tensor([*times, steps[-1]], dtype=torch.float64), places

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        place = plan.places[x.k]
        if place == 0:
            return exchange(x, plan.jump(x), 0.0)
        begin, s = plan.interval(x.k - place)
        return exchange(x, *self.correction(x, plan, s, plan.options["corrector_scale"] * (begin - s)))

    def correction(self, x: StepInput, plan: StepPlan, s: float, duration: float) -> tuple[torch.Tensor, float]:
        """Probabilities in a corrector at time s: that each masked position is revealed, `(B, L)`, and that a known
        one is masked.
        """
        noise_rate, odds, sums_BL = float(plan.noise.rate(s)), plan.odds(s), plan.score_sums(x)
        # a chain of two states, masked or known, with rates `noise_rate * sum` and `noise_rate`
        reveal_BL = sums_BL / (1 + sums_BL) * -torch.expm1(-noise_rate * (1 + sums_BL) * duration)
        return reveal_BL, -math.expm1(-noise_rate * (1 + odds) * duration) / (1 + odds)


def _fit(
    grid: Callable[[int], torch.Tensor], num_calls: int, corrector_steps: int, corrector_entry: float
) -> tuple[list[float], list[int]]:
    """Times between the steps, which are as few as fill `num_calls` calls; and the number of correctors after each."""
    steps, correctors, num_steps = [], [], -(-num_calls // (corrector_steps + 1)) - 1
    while len(correctors) + sum(correctors) < num_calls:
        num_steps += 1
        steps = grid(num_steps).tolist()
        correctors = [corrector_steps * (t <= corrector_entry) for t in steps[:-2]] + [0]
    surplus = len(correctors) + sum(correctors) - num_calls
    for k, num in enumerate(correctors):
        correctors[k] = num - min(num, surplus)
        surplus -= num - correctors[k]
    return steps, correctors
