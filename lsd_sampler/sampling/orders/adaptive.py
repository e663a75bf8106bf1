from dataclasses import dataclass

import torch

from .. import certainty
from ..canvas import StepInput
from ..plan import StepPlan
from ..position_choice import PositionChoice, apart, in_order, is_in_nats, mass_within, nats_within, num_within, within
from .base import Order
from .halton import HaltonOrder


LEAST_NATS = 1e-5
"""The token of a position of a smaller entropy is certain, up to rounding."""


@dataclass(frozen=True)
class Open:
    """The positions that a call may take, and what is known of them.

    Args:
        free_BL (`torch.BoolTensor` of shape `(batch_size, seq_len)`): masked, and revealed whatever the budget.
        open_BL (`torch.BoolTensor` of that shape): the other masked positions.
        entropy_BL (`torch.DoubleTensor` of that shape): nats; 0 where nothing is open.
    """

    free_BL: torch.Tensor
    open_BL: torch.Tensor
    entropy_BL: torch.Tensor

    @property
    def num_B(self) -> torch.Tensor:
        """Number of open positions, at least 1."""
        return self.open_BL.sum(1).clamp(min=1)

    @property
    def mean_B(self) -> torch.Tensor:
        """Mean entropy of the open positions."""
        return (self.entropy_BL.sum(1) / self.num_B).clamp(min=LEAST_NATS)


class AdaptiveOrder(Order):
    """Which positions, and how many, in each call, as learned for a model by `forced_kl`.

    A call reveals positions that are nearly certain, and of the others a learned share or a learned number of nats, in
    the order of a score with learned weights: [`~lsd_sampler.sampling.position_choice.PositionChoice`]. It reads the
    logits of every masked position, before any temperature of the draws, and chooses before a token is drawn. With one
    token a call its law is that of the denoiser. Without learned numbers it is `halton`, token for token.
    """

    name = "adaptive"
    looks_at_logits = True
    skips_complete = True  # free positions may leave nothing for the later calls

    def keys(self, u_BL: torch.Tensor, shift_B2: torch.Tensor, canvas_shape: tuple[int, ...]) -> torch.Tensor:
        return HaltonOrder().keys(u_BL, shift_B2, canvas_shape)

    def reveals(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        choice = plan.steps.choice
        if choice is None or x.is_last:
            return super().reveals(x, plan)
        return self.choose(x, plan, choice), x.canvas.v_BL

    def choose(self, x: StepInput, plan: StepPlan, choice: PositionChoice, seen: Open | None = None) -> torch.Tensor:
        """Which masked positions a step other than the last one reveals, `(B, L)`; no token is drawn. `seen` is what
        [`look`] returned, if that was called before.
        """
        seen = self.look(x, choice) if seen is None else seen
        share = float(choice.shares[x.k])
        num_B = seen.open_BL.sum(1)
        if choice.budget == "position_shares":
            num_B = num_within(share, num_B)
            place_BL = self.places(x, plan, choice, seen, num_B)
            chosen_BL = place_BL < num_B[:, None]
        else:
            limit_B = (nats_within if is_in_nats(choice.budget) else mass_within)(share, seen.entropy_BL)
            place_BL = self.places(x, plan, choice, seen, num_B, limit_B)
            chosen_BL = within(place_BL, seen.entropy_BL, limit_B)
        chosen_BL = chosen_BL | seen.free_BL
        if plan.in_blocks:  # a block that is complete early would end early
            chosen_BL = _leave_one(chosen_BL, x.masked_BL, place_BL)
        return chosen_BL

    def look(self, x: StepInput, choice: PositionChoice) -> Open:
        """Reads the entropies of the masked positions."""
        row_R, position_R = x.masked_BL.nonzero(as_tuple=True)
        entropy_R = certainty.of_rows(certainty.entropy, x.logits_BLV, row_R, position_R, x.mask_token_id)
        entropy_BL = x.spread(row_R, position_R, entropy_R, 0.0)
        free_BL = x.masked_BL & (entropy_BL < float(choice.free_below))
        open_BL = x.masked_BL & ~free_BL
        return Open(free_BL, open_BL, entropy_BL * open_BL)

    def places(
        self,
        x: StepInput,
        plan: StepPlan,
        choice: PositionChoice,
        seen: Open,
        num_B: torch.Tensor,
        limit_B: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The place of each open position in the order in which they are taken, from 0. `(B, L)`.

        The place is L where nothing is open, and may be L for positions that are not needed.

        Args:
            x, plan: as for `reveals`; `choice`: the weights; `seen`: from [`look`].
            num_B, limit_B: as for [`~lsd_sampler.sampling.position_choice.apart`].
        """
        score_BL = torch.zeros_like(seen.entropy_BL)
        if weight := choice.weight("own"):
            score_BL += weight * seen.entropy_BL / seen.mean_B[:, None]
        for name, key_BL in (("random", x.canvas.drawn_u_BL), ("halton", x.canvas.rank_BL)):
            if weight := choice.weight(name):
                score_BL += weight * in_order(seen.open_BL, key_BL.double()) / seen.num_B[:, None]
        gain, redundancy = choice.weight("gain"), choice.weight("redundancy")
        if plan.dependence is None or not (gain or redundancy):
            return in_order(seen.open_BL, score_BL)
        dependence = plan.dependence.on(x.canvas.shape, score_BL.device)
        bucket_B = plan.dependence.bucket(x.masked_BL)
        if gain:
            gain_BL = dependence.gain(seen.entropy_BL, bucket_B)
            score_BL -= gain * gain_BL / (seen.mean_B * seen.num_B)[:, None]
        if not redundancy:
            return in_order(seen.open_BL, score_BL)
        weight_B = redundancy / seen.mean_B
        return apart(seen.open_BL, score_BL, seen.entropy_BL, weight_B, dependence, bucket_B, num_B, limit_B)


def _leave_one(chosen_BL: torch.Tensor, masked_BL: torch.Tensor, place_BL: torch.Tensor) -> torch.Tensor:
    """The same choice, but a row of which everything would be revealed keeps its last position."""
    all_B = (chosen_BL == masked_BL).all(1) & masked_BL.any(1)
    # free positions have the place L, as those that are not masked
    last_B = torch.where(masked_BL, place_BL, -1).argmax(1)
    left_BL = torch.zeros_like(chosen_BL).scatter(1, last_B[:, None], all_B[:, None])
    return chosen_BL & ~left_BL
