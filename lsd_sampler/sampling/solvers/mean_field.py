"""Positions with a clear prediction, less those with similar ones (mean-field conflict suppression).

Shape suffixes: B batch, L positions, V vocabulary, R active positions of the batch, N the most of one sequence.
"""

import math

import torch

from .. import certainty
from ..canvas import StepInput
from ..plan import StepPlan
from .blocks import current_block
from .options import Option
from .own_step import OwnStep


_ELEMENTS = 2**20  # numbers of the mixtures that a CPU's caches hold; a GPU takes more at a time
_SWEEPS = 100


class MeanField(OwnStep):
    """Tokens that a mean-field energy commits (https://huggingface.co/papers/2606.15805, by quotations). One call a
    step.

    The energy rewards the lead of the most likely token (in nats), and punishes pairs of positions whose predicted
    laws overlap: 1 minus their Jensen-Shannon divergence in bits, divided by the largest overlap of the sequence.
    `rounds` synchronous updates of the commitments start from those without the punishment; tokens that are committed
    by at least `threshold` are revealed, or the one that is the most. With 2 rounds, as published, strong overlap ends
    near the start, and suppresses nobody; `rounds` of 0 goes on, damped, until nothing changes.

    Similar predictions are not dependence: two commas are alike, and need not depend on each other. Without a
    `block_length` all masked positions take part, and the work grows with the square of their number. It adapts to
    each sequence and is done when nothing is masked; the last call reveals what is left.
    """

    name = "mean_field"
    options = {"threshold": Option(0.9, 0, 1), "rounds": Option(2, 0), "block_length": Option(0, 0)}

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        """State: the block of the step before."""
        (v_BL,) = x.uniforms(1)
        block = x.canvas.state = current_block(x, plan, plan.options["block_length"], x.canvas.state)
        if x.is_last:
            return x.reveal(x.masked_BL, v_BL)
        row_R, position_R = block.active_BL.nonzero(as_tuple=True)
        p_RV = certainty.laws(x.rated_logits(), row_R, position_R, x.mask_token_id)
        place_R = block.active_BL.cumsum(1)[row_R, position_R] - 1
        p_BNV = p_RV.new_zeros(len(x.sample_BL), int(block.active_BL.sum(1).max()), p_RV.shape[1])
        p_BNV[row_R, place_R] = p_RV
        commit_BN = commitments(p_BNV, plan.options["rounds"])
        commit_BL = x.spread(row_R, position_R, commit_BN[row_R, place_R], -torch.inf)
        enough_BL = (commit_BL >= plan.options["threshold"]) | (certainty.ranks(commit_BL) == 0)
        return x.reveal(block.active_BL & (enough_BL | block.is_last_B[:, None]), v_BL)


def commitments(p_BNV: torch.Tensor, rounds: int) -> torch.Tensor:
    """How far each position is committed, in [0, 1], `(B, N)`.

    Args:
        p_BNV (`torch.DoubleTensor`): the predicted laws; 0 where a sequence has fewer than N positions.
        rounds (`int`): synchronous updates; 0: damped ones, until nothing changes.
    """
    lead_BN = leads(p_BNV)
    overlap_BNN = overlaps(p_BNV)
    commit_BN = lead_BN.sigmoid()
    for _ in range(rounds):
        commit_BN = (lead_BN - (overlap_BNN @ commit_BN[..., None])[..., 0]).sigmoid()
    for _ in range(0 if rounds else _SWEEPS):
        commit_BN = (commit_BN + (lead_BN - (overlap_BNN @ commit_BN[..., None])[..., 0]).sigmoid()) / 2
    return commit_BN


def leads(p_BNV: torch.Tensor) -> torch.Tensor:
    """Log-probability of the most likely token less that of the next, `(B, N)`; inf if no other is possible."""
    best_BN2 = torch.nn.functional.pad(p_BNV, (0, 1)).topk(2, dim=-1).values
    return (best_BN2[..., 0].log() - best_BN2[..., 1].log()).nan_to_num(nan=0.0, posinf=torch.inf)


def overlaps(p_BNV: torch.Tensor) -> torch.Tensor:
    """1 minus the Jensen-Shannon divergence of each pair of laws, in bits, over the largest of the sequence; 0 for a
    law with itself. `(B, N, N)`.
    """
    B, N, V = p_BNV.shape
    entropy_BN = torch.special.entr(p_BNV).sum(-1)
    overlap_BNN = p_BNV.new_zeros(B, N, N)
    held = _ELEMENTS if p_BNV.device.type == "cpu" else 16 * _ELEMENTS
    some = max(1, held // max(1, B * N * V))
    for begin in range(0, N, some):
        part, rest = slice(begin, begin + some), slice(begin, None)  # a pair once
        mixed_Bnm = torch.special.entr((p_BNV[:, part, None] + p_BNV[:, None, rest]) / 2).sum(-1)
        apart_Bnm = mixed_Bnm - (entropy_BN[:, part, None] + entropy_BN[:, None, rest]) / 2
        overlap_Bnm = (1 - apart_Bnm / math.log(2)).clamp(0, 1)
        overlap_BNN[:, part, rest], overlap_BNN[:, rest, part] = overlap_Bnm, overlap_Bnm.mT
    is_law_BN = p_BNV.sum(-1) > 0
    pair_BNN = is_law_BN[:, :, None] & is_law_BN[:, None] & ~torch.eye(N, dtype=torch.bool, device=p_BNV.device)
    overlap_BNN = overlap_BNN.masked_fill(~pair_BNN, 0)
    most_B11 = overlap_BNN.flatten(1).amax(1)[:, None, None] if N else overlap_BNN
    return torch.where(most_B11 > 0, overlap_BNN / most_B11, 0.0)
