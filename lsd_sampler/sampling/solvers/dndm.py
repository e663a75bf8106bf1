"""Transition times that are drawn before the generation (DNDM, https://huggingface.co/papers/2312.09193).

Shape suffixes: B batch, L positions, M steps.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .. import certainty
from ..canvas import StepInput
from ..plan import StepPlan
from .options import Option
from .own_step import OwnStep


_OPTIONS = {
    "weights": Option("linear_alpha", choices=("linear_alpha", "linear_lambda", "cosine", "beta")),
    "alpha": Option(5.0, 1),
    "beta": Option(3.0, 1),
    "training_steps": Option(0, 0),
    "greedy": Option(False, choices=(False, True)),
}


class DNDM(OwnStep):
    """Each position has a time of its own, drawn before the generation, at which it is revealed. One call a step.

    With M steps, times are 1 (the last step) to M (the first). The probability of time n is proportional to the n-th
    of the `weights`: `"linear_alpha"` (all equal), `"linear_lambda"` (from M down, positions without a time take time
    M - i with probability i / M, and the rest take time 1), `"cosine"`, or `"beta"`. The latter is the density of
    Beta(`alpha`, `beta`) at M points from 0 to 1. If M is below half of `training_steps`, the number that the network
    was trained with, it is its mass on M intervals of equal length. Where the authors' times begin at 0
    (`"linear_lambda"`, the mass), theirs are n - 1. Nothing changes at times that no position has, so a time-free
    network is called only as often as a sequence has distinct times: at most once for each token, however large M is.

    Under absorbing noise that is the usual way of sampling without its empty steps: with `"linear_alpha"` on a uniform
    grid, it is Tweedie with `count="bernoulli"`. The authors' code takes the most likely tokens (`greedy`) and one set
    of times for the whole batch; here tokens are drawn and each sequence has its own times.
    """

    name = "dndm"
    options = _OPTIONS

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        due_BL = x.masked_BL if x.is_last else x.masked_BL & due(x, plan, x.k)
        return x.reveal(due_BL, x.canvas.v_BL, math.inf if plan.options["greedy"] else 1.0)


class DNDMK(OwnStep):
    """DNDM-k: the times of `dndm` only decide how many tokens are known, and the known ones are those with the highest
    log-probability. One call a step.

    The present call scores all positions, including known tokens, and one that the network no longer believes in is
    masked again. (Networks that copy known tokens, as MDLM's parametrisation does, believe in all of them.)
    """

    name = "dndm_k"
    options = _OPTIONS
    skips_complete = False  # it reads the logits of known positions too

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        (v_BL,) = x.uniforms(1)
        beta = math.inf if plan.options["greedy"] else 1.0
        candidate_BL, log_prob_BL, confidence_BL = x.draw_rated(x.masked_BL, v_BL, beta)
        if x.is_last:
            return candidate_BL, log_prob_BL.exp().float()
        mine_BL, known_B = x.canvas.masked_BL, due(x, plan, x.k).sum(1)
        known_BL = x.confidence(mine_BL & ~x.masked_BL, x.sample_BL, beta)
        score_BL = torch.where(x.masked_BL, confidence_BL, known_BL).masked_fill(~mine_BL, -torch.inf)
        kept_BL = mine_BL & ~lowest(score_BL, mine_BL.sum(1) - known_B, mine_BL)
        idle_B = known_B == due(x, plan, x.k - 1).sum(1)  # no position has this time
        kept_BL = torch.where(idle_B[:, None], mine_BL & ~x.masked_BL, kept_BL)
        next_BL = torch.where(kept_BL, candidate_BL, x.sample_BL).masked_fill(mine_BL & ~kept_BL, x.mask_token_id)
        return next_BL, log_prob_BL.exp().float().masked_fill(~(kept_BL & x.masked_BL), 0)


def transition_weights(num_steps: int, options: Mapping[str, Any]) -> torch.Tensor:
    """Relative probabilities of the times 1, ..., M of a position. Float64 of shape `(M,)`."""
    kind, n_M = options["weights"], torch.arange(num_steps, dtype=torch.float64)
    if kind == "linear_alpha" or num_steps == 1:
        return torch.ones_like(n_M)
    if kind == "linear_lambda":
        taken_M = n_M / num_steps
        taken_M[-1] = 1
        return (taken_M * torch.cat([torch.ones_like(n_M[:1]), (1 - taken_M[:-1]).cumprod(0)])).flip(0)
    if kind == "cosine":
        offset = 0.08
        edges = (torch.arange(num_steps + 1, dtype=torch.float64) / num_steps + offset) / (1 + offset)
        return -(torch.cos(edges.clamp(max=1) * math.pi / 2) ** 2).diff()
    if 2 * num_steps < options["training_steps"]:
        return _beta_mass(num_steps, options["alpha"], options["beta"])
    share_M = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    log_M = torch.xlogy(options["alpha"] - 1, share_M) + torch.xlogy(options["beta"] - 1, 1 - share_M)
    # with two steps, the density may be 0 at both
    return (log_M - log_M.max()).exp() if log_M.max() > -torch.inf else torch.ones_like(n_M)


def _beta_mass(num_intervals: int, alpha: float, beta: float) -> torch.Tensor:
    """Mass of Beta(`alpha`, `beta`) on intervals of equal length, up to a factor: by Gauss' rule in the angle whose
    squared sine is the share, in which the density is smooth.
    """
    node_Q, weight_Q = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(64))
    edge = torch.linspace(0, 1, num_intervals + 1, dtype=torch.float64).sqrt().asin()
    half_M1 = edge.diff()[:, None] / 2
    angle_MQ = edge[:-1, None] + half_M1 * (1 + node_Q)
    log_MQ = (2 * alpha - 1) * angle_MQ.sin().log() + (2 * beta - 1) * angle_MQ.cos().log()
    return ((log_MQ - log_MQ.max()).exp() * weight_Q * half_M1).sum(-1)


def due(x: StepInput, plan: StepPlan, k: int) -> torch.Tensor:
    """Which of the positions masked at the start have reached their time by the end of step k. `(B, L)`."""
    left = transition_weights(len(plan.places), plan.options).flip(0)[x.canvas.start :]
    return x.canvas.masked_BL & (x.canvas.u_BL < float(left[: k + 1 - x.canvas.start].sum() / left.sum()))


def lowest(score_BL: torch.Tensor, num_B: torch.Tensor, among_BL: torch.Tensor) -> torch.Tensor:
    """The `num_B` positions of each row with the lowest scores, `(B, L)`. Ties go to the leftmost."""
    return certainty.ranks(-score_BL.masked_fill(~among_BL, torch.inf)) < num_B[:, None]
