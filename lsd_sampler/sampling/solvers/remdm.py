from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ..canvas import StepInput
from ..noise import NoiseSchedule
from ..plan import StepPlan
from .options import Option
from .own_step import OwnStep, exchange


class ReMDM(OwnStep):
    """Remasking steps (ReMDM, https://huggingface.co/papers/2503.00307, eq. 5-8): a known token is masked again with
    probability sigma, and more masked ones are revealed in return, so that marginals stay right. One call a step.

    Mistakes of parallel draws can be mended, so it pays with many steps: many more than there are tokens. With few
    steps, samplers that choose positions well are better. Under an unnormalised denoiser, the tokens follow the score,
    and the numbers of tokens follow the schedule.

    `top_p` follows the authors' rule: kept tokens hold at most `top_p` (or are the most likely one alone). Other
    solvers, like diffusers, also keep the token with which `top_p` is passed. The plain sampler under this rule is
    `remdm_cap` with an `eta` of 0.
    """

    @abstractmethod
    def remask_probability(self, alpha_t: float, alpha_s: float, options: Mapping[str, Any]) -> float:
        """Sigma of a step between times at which tokens are unmasked with these probabilities. It may exceed 1."""

    def chances(self, noise: NoiseSchedule, t: float, s: float, options: Mapping[str, Any]) -> tuple[float, float]:
        """Probabilities in a step from t to s: that a masked position is revealed, and that a known one is masked."""
        alpha_t, alpha_s = float(noise.alpha(t)), float(noise.alpha(s))
        sigma = self.remask_probability(alpha_t, alpha_s, options)
        if t == 1:  # no token is known yet that could be masked again, whatever alpha is
            sigma = min(1.0, sigma)
        return _reveal_probability(alpha_t, alpha_s, sigma), min(1.0, sigma)

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        return exchange(_strict(x), *self.chances(plan.noise, *plan.interval(x.k), plan.options))


class ReMDMCap(ReMDM):
    """ReMDM with sigma as large as is possible, but at most `eta`. One call a step."""

    name = "remdm_cap"
    options = {"eta": Option(0.008, 0, 1)}

    def remask_probability(self, alpha_t: float, alpha_s: float, options: Mapping[str, Any]) -> float:
        return min(options["eta"], most_remasking(alpha_t, alpha_s))


class ReMDMRescale(ReMDM):
    """ReMDM with sigma `eta` times what is possible. One call a step."""

    name = "remdm_rescale"
    options = {"eta": Option(0.04, 0, 1)}

    def remask_probability(self, alpha_t: float, alpha_s: float, options: Mapping[str, Any]) -> float:
        return options["eta"] * most_remasking(alpha_t, alpha_s)


class ReMDMForwardBackward(ReMDM):
    """ReMDM with the sigma of a step back and a corrector step forth (https://huggingface.co/papers/2205.14987). One
    call a step.

    As in the authors' code, where sigma exceeds 1 (a step that more than doubles the share of known tokens) all known
    tokens are masked again, and more are revealed than would keep the marginals.
    """

    name = "remdm_fb"

    def remask_probability(self, alpha_t: float, alpha_s: float, options: Mapping[str, Any]) -> float:
        return (alpha_s - alpha_t) / alpha_t if alpha_t else 1.0


class ReMDMConf(ReMDM):
    """ReMDM with the largest sigma, shared out among the known tokens of a sequence: those of low probability when
    they were drawn get more of it. One call a step. (Its authors read that probability after `top_p`, where this says
    `certainty="tempered"`.)

    As in the authors' code, masked positions are revealed as if nothing was masked again.
    """

    name = "remdm_conf"

    def remask_probability(self, alpha_t: float, alpha_s: float, options: Mapping[str, Any]) -> float:
        return most_remasking(alpha_t, alpha_s)

    def chances(self, noise: NoiseSchedule, t: float, s: float, options: Mapping[str, Any]) -> tuple[float, float]:
        alpha_t, alpha_s = float(noise.alpha(t)), float(noise.alpha(s))
        return _reveal_probability(alpha_t, alpha_s, 0.0), most_remasking(alpha_t, alpha_s)

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        """State: minus the denoiser's probability of each known token when it was drawn, -inf elsewhere, `(B, L)`."""
        reveal, sigma = self.chances(plan.noise, *plan.interval(x.k), plan.options)
        doubt_BL = x.canvas.state
        if doubt_BL is None:
            doubt_BL = torch.full(x.sample_BL.shape, -torch.inf, dtype=torch.float64, device=x.sample_BL.device)
        remask_BL = sigma * share(doubt_BL.masked_fill(x.masked_BL, -torch.inf))
        next_BL, probability_BL = exchange(_strict(x), reveal, remask_BL)
        revealed_BL = x.masked_BL & (next_BL != x.mask_token_id)
        confidence_BL = _strict(x).confidence_of_draws(revealed_BL, next_BL, probability_BL.double().log()).exp()
        doubt_BL = torch.where(x.masked_BL, -confidence_BL, doubt_BL)
        x.canvas.state = doubt_BL.masked_fill(next_BL == x.mask_token_id, -torch.inf)
        return next_BL, probability_BL


class ReMDMLoop(ReMDM):
    """ReMDM in three phases: without remasking until a share `alpha_on` is known, at `t_on`; then as many tokens are
    masked again (a share `eta`) as are revealed, until `t_off`; then the rest is revealed. One call a step. (An `eta`
    above `(1 - alpha_on) / alpha_on` masks more than there are to reveal.)

    The network sees the time of the grid, as in the authors' code, although fewer tokens are masked than at that time.
    """

    name = "remdm_loop"
    options = {
        "eta": Option(0.02, 0, 1),
        "t_on": Option(0.55, 0, 1, open_ends=True),
        "t_off": Option(0.05, 0, 1, open_ends=True),
        "alpha_on": Option(0.9, 0, 1, open_ends=True),
    }

    def remask_probability(self, alpha_t: float, alpha_s: float, options: Mapping[str, Any]) -> float:
        return options["eta"]

    def chances(self, noise: NoiseSchedule, t: float, s: float, options: Mapping[str, Any]) -> tuple[float, float]:
        alpha_on = options["alpha_on"]
        if t > options["t_on"]:
            scale = alpha_on / float(noise.alpha(options["t_on"]))
            return _reveal_probability(float(noise.alpha(t)) * scale, float(noise.alpha(s)) * scale, 0.0), 0.0
        if t <= options["t_off"]:
            scale = (1 - alpha_on) / float(noise.masked(options["t_off"]))
            return _reveal_probability(
                1 - float(noise.masked(t)) * scale, 1 - float(noise.masked(s)) * scale, 0.0
            ), 0.0
        sigma = self.remask_probability(alpha_on, alpha_on, options)
        return _reveal_probability(alpha_on, alpha_on, sigma), sigma


def most_remasking(alpha_t: float, alpha_s: float) -> float:
    """The largest sigma under which marginals can stay right."""
    return min(1.0, (1 - alpha_s) / alpha_t) if alpha_t else 1.0


def share(doubt_BL: torch.Tensor) -> torch.Tensor:
    """Softmax over the positions of each row; 0 at -inf."""
    return doubt_BL.softmax(-1).nan_to_num(0.0)


def _strict(x: StepInput) -> StepInput:
    """The same input, with the authors' rule for `top_p`."""
    return replace(x, draws=replace(x.draws, keeps_crossing=False))


def _reveal_probability(alpha_t: float, alpha_s: float, sigma: float) -> float:
    """The authors' weights of tokens and mask add up to 1; if that of the mask is negative, no mask is drawn."""
    return min(1.0, max(0.0, (alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t)))
