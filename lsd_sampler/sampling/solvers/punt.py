"""Positions that do not depend on each other, found by further network calls (PUNT).

Shape suffixes: B batch, L positions, V vocabulary, R masked positions of the batch.
"""

from dataclasses import dataclass, replace

import torch

from .. import certainty
from ..canvas import StepInput
from ..plan import StepPlan
from .options import Option
from .own_step import OwnStep
from .remembered import Rows


_TINY = 1e-300  # keeps the logarithm of a probability that rounds to 0 finite


@dataclass(frozen=True)
class _Round:
    """Where each sequence is: the canvas at its base call, what was drawn there, and what has survived the tests.

    Args:
        base_BL: tokens at the base call. candidate_BL, probability_BL: a token for each mask, and its probability.
        place_BL: 0 for the most confident candidate. kept_BL: candidates that no test has dropped.
        laws: of the masks at the base call.
        bit_B: the bit of the places that the present call tests; -1 in a base call.
    """

    base_BL: torch.Tensor
    candidate_BL: torch.Tensor
    probability_BL: torch.Tensor
    place_BL: torch.Tensor
    kept_BL: torch.Tensor
    laws: Rows
    bit_B: torch.Tensor


class PUNT(OwnStep):
    """A set of tokens without detected dependence (PUNT, https://huggingface.co/papers/2510.21961; by notes on the
    paper). Each round has a base call and up to `ceil(log2 m)` further calls, where m is masked.

    The base call draws a candidate for every mask, and ranks them by confidence. Each further call tests one bit of
    the ranks: with the candidates whose bit is 0 in their places, it drops those of the others whose law moves by more
    than `epsilon` nats. Any two survivors differ in a bit, so one was tested against the other. All survivors are
    revealed. The most confident candidate is never tested.

    A round begins only if its calls, and one more, are left. Otherwise the calls that are left reveal equal shares,
    the most confident first. In between the canvas holds candidates that are masked again.
    """

    name = "punt"
    options = {"epsilon": Option(0.04, 0)}

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        """State: a `_Round`."""
        (v_BL,) = x.uniforms(1)
        if x.is_last:
            return x.reveal(x.masked_BL, v_BL)
        tested: _Round | None = x.canvas.state
        if tested is None:
            at_base_B = torch.ones_like(x.sample_BL[:, 0], dtype=torch.bool)
            now = self._base_call(x, x.masked_BL, v_BL)
        else:
            at_base_B, now = tested.bit_B < 0, self._dropped(x, tested, plan.options["epsilon"])
            if bool(at_base_B.any()):
                now = _where(at_base_B, self._base_call(x, x.masked_BL & at_base_B[:, None], v_BL), now)
        left, num_B = len(plan.places) - x.k, (now.base_BL == x.mask_token_id).sum(1)
        # the ceiling of log2, in integers
        rounds_B = (2 ** torch.arange(62, device=num_B.device) < num_B[:, None]).sum(1)
        shared_B = at_base_B & (left <= 1 + rounds_B)
        bit_B = torch.where(shared_B, -1, _next_bit(now, at_base_B))
        share_BL = now.place_BL < ((num_B + left - 1) // left)[:, None]
        shown_BL = torch.where((bit_B < 0)[:, None], now.kept_BL, _is_anchor(now, bit_B))
        shown_BL = torch.where(shared_B[:, None], share_BL & (now.base_BL == x.mask_token_id), shown_BL)
        x.canvas.state = replace(now, bit_B=bit_B)
        next_BL = torch.where(shown_BL, now.candidate_BL, now.base_BL)
        return next_BL, now.probability_BL.masked_fill(~(shown_BL & x.masked_BL), 0)

    def _base_call(self, x: StepInput, masked_BL: torch.Tensor, v_BL: torch.Tensor) -> _Round:
        """The rounds that begin with this call, at these masks."""
        candidate_BL, log_prob_BL, confidence_BL = x.draw_rated(masked_BL, v_BL)
        row_R, position_R = masked_BL.nonzero(as_tuple=True)
        laws = Rows.of(certainty.laws(x.logits_BLV, row_R, position_R, x.mask_token_id), masked_BL)
        nothing_B = torch.full_like(x.sample_BL[:, 0], -1)
        place_BL = certainty.ranks(confidence_BL)
        return _Round(x.sample_BL, candidate_BL, log_prob_BL.exp().float(), place_BL, masked_BL, laws, nothing_B)

    def _dropped(self, x: StepInput, tested: _Round, epsilon: float) -> _Round:
        """The round after the present call, which showed the anchors of a bit."""
        others_BL = tested.kept_BL & ~_is_anchor(tested, tested.bit_B) & (tested.bit_B >= 0)[:, None]
        row_R, position_R = (others_BL & x.masked_BL).nonzero(as_tuple=True)
        p_RV = tested.laws.at(row_R, position_R)
        q_RV = certainty.laws(x.logits_BLV, row_R, position_R, x.mask_token_id)
        moved_R = (p_RV * ((p_RV + _TINY).log() - (q_RV + _TINY).log())).sum(-1)
        return replace(tested, kept_BL=tested.kept_BL & ~x.spread(row_R, position_R, moved_R > epsilon, False))


def _is_anchor(now: _Round, bit_B: torch.Tensor) -> torch.Tensor:
    """The kept candidates whose place has a 0 at this bit."""
    return now.kept_BL & (now.place_BL >> bit_B.clamp(min=0)[:, None] & 1 == 0)


def _next_bit(now: _Round, at_base_B: torch.Tensor) -> torch.Tensor:
    """The next bit in which kept candidates differ, `(B,)`; -1 if there is none."""
    num_bits = max(1, now.place_BL.shape[1].bit_length())
    set_BLN = (now.place_BL[..., None] >> torch.arange(num_bits, device=now.place_BL.device)) & 1 == 1
    kept_BL1 = now.kept_BL[..., None]
    differs_BN = (set_BLN & kept_BL1).any(1) & (~set_BLN & kept_BL1).any(1)
    first_B = torch.where(at_base_B, 0, now.bit_B + 1)
    later_BN = differs_BN & (torch.arange(num_bits, device=first_B.device) >= first_B[:, None])
    return torch.where(later_BN.any(1), later_BN.int().argmax(1), -1)


def _where(at_base_B: torch.Tensor, begun: _Round, tested: _Round) -> _Round:
    """The new round of sequences in a base call, the old one of the others."""
    choose_B1 = at_base_B[:, None]
    parts = {
        name: torch.where(choose_B1, getattr(begun, name), getattr(tested, name))
        for name in ("base_BL", "candidate_BL", "probability_BL", "place_BL", "kept_BL")
    }
    laws = begun.laws.where(choose_B1, tested.laws)
    return _Round(**parts, laws=laws, bit_B=torch.where(at_base_B, begun.bit_B, tested.bit_B))
