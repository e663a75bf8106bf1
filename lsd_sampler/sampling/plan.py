"""The numbers that control the steps of a generation, besides the network's output.

Shape suffixes: B batch, L positions, R rows (masked positions of the batch).
"""

import functools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ..support.validation import check_choice
from .canvas import StepInput
from .counts import dream_revealed, llada_known
from .dependence import Dependence
from .draws import log_mass
from .learned_numbers import LearnedSteps
from .noise import NoiseSchedule


if TYPE_CHECKING:
    from .solvers import Solver


PREDICTION_TYPES = ("logits", "log_score")


def check_prediction_type(config: Any) -> None:
    """Raises `ValueError` unless a scheduler's config says what the network's output is."""
    check_choice("prediction_type", config.prediction_type, PREDICTION_TYPES)


@dataclass(frozen=True)
class StepPlan:
    """The numbers of M steps.

    Args:
        solver ([`~lsd_sampler.sampling.solvers.Solver`]): its weights decide the counts of the schedule.
        noise ([`~lsd_sampler.sampling.noise.NoiseSchedule`]): of the forward process.
        prediction_type, count (`str`): as in `LSDScheduler`'s config.
        steps ([`~lsd_sampler.sampling.learned_numbers.LearnedSteps`]): times and coefficients.
        position_temperatures (`list[float]` of length M): Gumbel temperatures of orders that look at the logits.
        places (`list[int]` of length M): the place of each network call in its step, from 0.
        in_blocks (`bool`): whether the last masked position of a canvas waits for the last step.
        options (`dict`): the solver's, by name.
        minimal_gap (`int`): the least distance between the positions of one step, when all is masked; 0 for none.
        dependence ([`~lsd_sampler.sampling.dependence.Dependence`], *optional*): between positions, where it is
            learned.
    """

    solver: "Solver"
    noise: NoiseSchedule
    prediction_type: str
    count: str
    steps: LearnedSteps
    position_temperatures: list[float]
    places: list[int]
    in_blocks: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    minimal_gap: int = 0
    dependence: Dependence | None = None

    @functools.cached_property
    def reveal_probabilities(self) -> list[float]:
        """Probability that a masked position is revealed in each step, under a normalised denoiser; the last is 1."""
        t, s = self.steps.timesteps[:-1], self.steps.timesteps[1:]
        probability_M = self.steps.score_coefficients * self.solver.reveal_probability(self.noise, t, s)
        return [*probability_M.clamp(0, 1).tolist()[:-1], 1.0]

    @functools.cached_property
    def score_weights(self) -> list[float]:
        """The factor in front of an unnormalised denoiser's score, in each step."""
        t, s = self.steps.timesteps[:-1], self.steps.timesteps[1:]
        return (self.steps.score_coefficients * self.solver.score_weight(self.noise, t, s)).tolist()

    @property
    def counts_jumps(self) -> bool:
        """Whether the scores of a step say how many positions it reveals."""
        return self.count == "bernoulli" and self.prediction_type == "log_score"

    def log_score_coefficient(self, k: int) -> float:
        """Beta of step k."""
        return float(self.steps.log_score_coefficients[k])

    def interval(self, k: int) -> tuple[float, float]:
        """The times `t > s` at which step k begins and ends."""
        t, s = self.steps.timesteps[k : k + 2].tolist()
        return t, s

    def survival(self, x: StepInput) -> float:
        """Probability of being masked still after this step, under a normalised denoiser."""
        return math.prod(1 - r for r in self.reveal_probabilities[x.canvas.start : x.k + 1])

    def masked_before(self, k: int) -> float:
        """Share of the positions that are masked when step k of a whole generation begins."""
        if k == 0:
            return 1.0
        if self.prediction_type == "log_score":
            return float(self.noise.masked(self.steps.timesteps[k]))
        first = float(self.noise.masked(self.steps.timesteps[0])) if self.count == "exact" else 1.0
        return first * math.prod(1 - r for r in self.reveal_probabilities[:k])

    def num_known(self, x: StepInput) -> torch.Tensor:
        """How many of the positions masked at the start are known after this step, by its counts. `(B,)`."""
        M, start = len(self.reveal_probabilities), x.canvas.start
        if self.count == "llada":
            return llada_known(x.canvas.masked_BL.sum(1), x.k - start, M - start)
        if self.count == "dream":
            left_B = (x.canvas.masked_BL & x.masked_BL).sum(1)
            revealed_B = dream_revealed(left_B, x.k, M, float(self.steps.timesteps[-1]))
            return x.canvas.masked_BL.sum(1) - left_B + revealed_B
        known = 1 - float(self.noise.masked(self.steps.timesteps[0])) * self.survival(x)
        masked_B = x.canvas.masked_BL.sum(1).double()
        known_B = (masked_B * known).round()
        return known_B.minimum(masked_B - 1) if self.in_blocks else known_B

    def due(self, x: StepInput) -> torch.Tensor:
        """Which of the positions masked at the start are known after this step if they are revealed by rank. `(B, L)`.

        With [`counts_jumps`], this follows from the jumps that the canvas survived so far, including this step's.
        """
        canvas = x.canvas
        if self.count != "bernoulli":
            return canvas.masked_BL & (canvas.rank_BL < self.num_known(x)[:, None])
        survival = canvas.survival_BL if self.counts_jumps else self.survival(x)
        return canvas.masked_BL & (canvas.u_BL < 1 - survival)

    def jump(self, x: StepInput) -> torch.Tensor:
        """Probability that each masked position jumps in this step, 0 elsewhere. `(B, L)`, float64."""
        if self.prediction_type == "logits":
            return x.masked_BL.double() * self.reveal_probabilities[x.k]
        sums_BL = self.score_sums(x, self.log_score_coefficient(x.k))
        return (self.score_weights[x.k] * sums_BL).clamp(max=1)

    def score_sums(self, x: StepInput, beta: float = 1.0) -> torch.Tensor:
        """The sum of the scores (to the power beta, if unnormalised) of each masked position, 0 elsewhere. `(B, L)`,
        float64.
        """
        if self.prediction_type == "logits":
            return x.masked_BL.double() * self.odds(self.interval(x.k)[0])
        row_R, position_R = x.masked_BL.nonzero(as_tuple=True)
        log_mass_R = log_mass(x.logits_BLV, row_R, position_R, inverse_temperature=beta, excluded=x.mask_token_id)
        return x.spread(row_R, position_R, log_mass_R.exp(), 0.0)

    def odds(self, t: float) -> float:
        """The sum of the scores of a position at time t, under a normalised denoiser."""
        return float(self.noise.alpha(t) / self.noise.masked(t))
