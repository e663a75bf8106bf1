"""Two-stage solvers of the reverse process (https://huggingface.co/papers/2502.00234).

Shape suffixes: B batch, L positions, V vocabulary, R rows (positions of the batch).
"""

import itertools
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..canvas import StepInput
from ..logit_rows import ModelOutput, check_row_maximum, row_chunks
from ..plan import StepPlan
from .options import Option
from .own_step import OwnStep


@dataclass(frozen=True)
class FirstStage:
    """What the second stage needs from the first: its call's index and output, and what was masked then.

    The output is a copy, because a pipeline may write the next one into the same memory.
    """

    k: int
    output_BLV: ModelOutput
    masked_BL: torch.Tensor


class ThetaSolver(OwnStep):
    """A step from t to s in two stages. The first covers a share `theta` of it, by the intensities at t; the second
    uses a mix of these and the intensities where the first ended. Two calls a step.

    An odd number of calls ends with a plain step. The last stage reveals all that is left. A copy of the network's
    output is kept from the first stage to the second, or of the hidden states if its head runs row by row.
    """

    evals_per_step = 2
    options = {"theta": Option(0.5, 0, 1, open_ends=True)}
    starts_over: ClassVar[bool]
    """Whether the second stage goes from t to s, so that what the first one revealed is masked and drawn again."""

    @abstractmethod
    def mix(self, mu_RV: torch.Tensor, mu_star_RV: torch.Tensor, theta: float) -> torch.Tensor:
        """Intensities of the second stage, from those at t and those at the end of the first stage. `(R, V)`."""

    @abstractmethod
    def leap(self, num_jumps: torch.Tensor) -> torch.Tensor:
        """Probability of being revealed, given the expected number of jumps, elementwise."""

    def calls(
        self, grid: Callable[[int], torch.Tensor], num_calls: int, options: Mapping[str, Any]
    ) -> tuple[torch.Tensor, list[int]]:
        steps = grid(-(-num_calls // 2)).tolist()
        times = [time for t, s in itertools.pairwise(steps) for time in (t, t - options["theta"] * (t - s))]
        return torch.tensor([*times[:num_calls], steps[-1]], dtype=torch.float64), [k % 2 for k in range(num_calls)]

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        first, x.canvas.state = x.canvas.state, None
        if first is not None and first.k == x.k - 1:
            return self._second_stage(x, plan, first)
        if plan.places[x.k] == 0 and not x.is_last:
            x.canvas.state = FirstStage(x.k, x.logits_BLV.clone(), x.masked_BL)
        v_BL, leap_BL = x.uniforms(2)
        t, s = plan.interval(x.k)
        due_BL = x.masked_BL
        if not x.is_last:
            due_BL = due_BL & (leap_BL < self.leap((t - s) * float(plan.noise.rate(t)) * plan.score_sums(x)))
        return x.reveal(due_BL, v_BL)

    def _second_stage(self, x: StepInput, plan: StepPlan, first: FirstStage) -> tuple[torch.Tensor, torch.Tensor]:
        v_BL, leap_BL = x.uniforms(2)
        (t, t_star), (_, s) = plan.interval(first.k), plan.interval(x.k)
        duration = (t if self.starts_over else t_star) - s
        again_BL = first.masked_BL & ~x.masked_BL & (self.starts_over and not x.is_last)
        next_BL = x.sample_BL.masked_fill(again_BL, x.mask_token_id)
        probability_BL = torch.zeros(next_BL.shape, device=next_BL.device)
        row_R, position_R = (x.masked_BL | again_BL).nonzero(as_tuple=True)
        outputs = (row_chunks(o, row_R, position_R, x.mask_token_id) for o in (first.output_BLV, x.logits_BLV))
        done = 0
        for before_RV, output_RV in zip(*outputs, strict=True):
            rows = slice(done, done + len(output_RV))
            done, at = rows.stop, (row_R[rows], position_R[rows])
            # a known position has no intensities
            mu_star_RV = _intensities(output_RV, plan, t_star).masked_fill(again_BL[at][:, None], 0.0)
            mu_RV = self.mix(_intensities(before_RV, plan, t), mu_star_RV, plan.options["theta"])
            total_R = mu_RV.sum(-1)
            leaps_R = leap_BL[at] < self.leap(duration * total_R)
            if x.is_last:
                mu_RV, leaps_R = torch.where(total_R[:, None] > 0, mu_RV, mu_star_RV), torch.ones_like(leaps_R)
            at = (at[0][leaps_R], at[1][leaps_R])
            token_R, log_prob_R = _draw(x, mu_RV[leaps_R], v_BL[at])
            next_BL = next_BL.index_put(at, token_R)
            probability_BL = probability_BL.index_put(at, log_prob_R.exp().float())
        return next_BL, probability_BL


class ThetaTrapezoidal(ThetaSolver):
    """Theta-trapezoidal method (https://huggingface.co/papers/2502.00234, algorithm 2). Two calls a step, of second
    order (up to a logarithm, as intensities go like 1 / t).

    A stage goes on from where the last one ended. Mixed intensities below 0 are taken as 0, which lowers the order. At
    a `theta` of 1/2 that happens if one reveal more than halves the intensity of another token; at other values it
    happens sooner. At equal calls it overtakes Tweedie once steps are small. One-call steps are better with few calls,
    or if positions can be chosen that do not depend on each other.
    """

    name = "theta_trapezoidal"
    starts_over = False

    def mix(self, mu_RV: torch.Tensor, mu_star_RV: torch.Tensor, theta: float) -> torch.Tensor:
        forward, back = 1 / (2 * theta * (1 - theta)), ((1 - theta) ** 2 + theta**2) / (2 * theta * (1 - theta))
        return (forward * mu_star_RV - back * mu_RV).clamp(min=0)

    def leap(self, num_jumps: torch.Tensor) -> torch.Tensor:
        return -torch.expm1(-num_jumps)


class ThetaRK2(ThetaSolver):
    """Theta-RK-2 method (https://huggingface.co/papers/2502.00234, algorithm 1). Two calls a step.

    The second stage starts over from the canvas at the beginning of the step. A token that the first stage revealed
    has no intensity at its end, and for `theta` up to 1/2 it is masked again. Because tokens that are revealed
    together do not see each other, the law of the samples converges with order 1, despite the name: prefer
    `theta_trapezoidal`.
    """

    name = "theta_rk2"
    starts_over = True

    def mix(self, mu_RV: torch.Tensor, mu_star_RV: torch.Tensor, theta: float) -> torch.Tensor:
        return ((1 - 1 / (2 * theta)) * mu_RV + mu_star_RV / (2 * theta)).clamp(min=0).masked_fill(mu_RV <= 0, 0.0)

    def leap(self, num_jumps: torch.Tensor) -> torch.Tensor:
        # the mixed intensity already accounts for positions that leaped in the first stage
        return num_jumps.clamp(max=1)


def _intensities(output_RV: torch.Tensor, plan: StepPlan, t: float) -> torch.Tensor:
    """Rates at which masked positions become each token, `(R, V)`, float64."""
    check_row_maximum(output_RV.amax(-1))
    rate = float(plan.noise.rate(t))
    if plan.prediction_type == "log_score":
        return rate * output_RV.double().exp()
    return rate * plan.odds(t) * output_RV.double().softmax(-1)


def _draw(x: StepInput, weight_RV: torch.Tensor, v_R: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A token for each row of weights, drawn as the pipeline asks, and its log-probability. Both `(R,)`."""
    index_R = torch.arange(len(v_R), device=v_R.device)
    return x.draws.draw(weight_RV.log()[None], torch.zeros_like(index_R), index_R, v_R)
