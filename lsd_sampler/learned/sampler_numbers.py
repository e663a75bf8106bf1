"""The numbers of a sampler, and the numbers of steps for which it has them."""

import numbers
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ..sampling.counts import COUNTS
from ..sampling.learned_numbers import LearnedSampler, LearnedSteps
from ..sampling.noise import NoiseSchedule
from ..sampling.schedules import grid_from_counts
from ..sampling.solvers import Solver
from .interpolation import interpolated_choice, interpolated_coefficients
from .sampler_files import SamplerFiles
from .tensor_file import format_version


class SamplerNumbers(SamplerFiles):
    """The numbers of a sampler: learned ones if there are any, otherwise those of the plain base solver."""

    noise: NoiseSchedule
    _solver: Solver
    _options: dict[str, Any]
    _base_grid: Callable[[int], torch.Tensor]

    @property
    def available_num_inference_steps(self) -> list[int] | None:
        """The numbers of steps that were learned, or `None` if any number is available (a step-error table, a learned
        choice of positions, or nothing learned).
        """
        learned = self.learned_sampler
        if learned.step_error is not None or learned.chooses or not learned:
            return None
        return sorted(self.learned_sampler.steps)

    def can_do(self, num_inference_steps: int) -> bool:
        """Whether this sampler has numbers for `num_inference_steps` steps."""
        step_error = self.learned_sampler.step_error
        learned = self.learned_sampler
        if num_inference_steps in learned.steps or learned.chooses or not learned:
            return True
        return step_error is not None and 1 <= num_inference_steps <= len(step_error.grid)

    def set_learned_sampler(self, learned_sampler: LearnedSampler) -> None:
        """Installs learned numbers.

        Raises:
            ValueError: if one of them is unusable.
        """
        learned_sampler.check("learned_sampler")
        if learned_sampler and not self._solver.distillable:
            raise ValueError(f"`solver` {self.config.solver!r} is a baseline, and nothing can be learned for it.")
        if learned_sampler and self.config.count not in COUNTS:
            raise ValueError(
                f"`count` {self.config.count!r} fixes how many tokens each step reveals, so nothing can be learned for"
                f" it. Use one of {list(COUNTS)}."
            )
        if learned_sampler.chooses and self.config.order != "adaptive":
            raise ValueError(
                f"`learned_sampler` says which positions to reveal: it needs `order` 'adaptive', got"
                f" {self.config.order!r}."
            )
        if learned_sampler.chooses and self.config.count != "exact":
            raise ValueError(
                "`learned_sampler` itself says how many tokens a step reveals: it needs `count` 'exact', got"
                f" {self.config.count!r}."
            )
        self.learned_sampler = learned_sampler
        version = format_version(learned_sampler)
        self.register_to_config(learned=bool(learned_sampler), tensors_sha256=None, format_version=version)

    def steps_for(self, num_inference_steps: int) -> LearnedSteps:
        """The sampler's numbers for `num_inference_steps` steps. They are learned, or solved from the step-error table
        or interpolated between numbers of steps that were learned, or the plain base solver's.

        Raises:
            ValueError: if `num_inference_steps` is not positive, or this sampler has no numbers for it.
        """
        is_integer = isinstance(num_inference_steps, numbers.Integral) and not isinstance(num_inference_steps, bool)
        if not is_integer or num_inference_steps < 1:
            raise ValueError(f"`num_inference_steps` must be a positive integer, got {num_inference_steps!r}.")
        M = int(num_inference_steps)
        if M in self.learned_sampler.steps:
            return self.learned_sampler.steps[M]
        if self.learned_sampler.step_error is not None or self.learned_sampler.chooses:
            steps = self._solved(M)
            beta_M = interpolated_coefficients(self.learned_sampler.steps, steps.timesteps, self.noise)
            return replace(steps, log_score_coefficients=beta_M)
        if self.learned_sampler:
            raise ValueError(
                f"`num_inference_steps` must be one of {self.available_num_inference_steps}, which this sampler"
                f" learned, got {M}. Distil it for that number with `lsd-train --nfe`."
            )
        return LearnedSteps.plain(self._calls(M)[0])

    def _solved(self, M: int) -> LearnedSteps:
        """Steps for a number that was not learned, with coefficients 1. A choice of positions goes before a table."""
        learned = self.learned_sampler
        if learned.chooses:
            return interpolated_choice(learned.steps, M)
        assert learned.step_error is not None
        counts, _ = learned.step_error.solve(M)
        return LearnedSteps.plain(grid_from_counts(counts, self.noise, self.config.sampling_eps))

    def _calls(self, num_calls: int) -> tuple[torch.Tensor, list[int]]:
        """Times of the base solver's network calls, and the place of each in its step."""
        return self._solver.calls(self._base_grid, num_calls, self._options)
