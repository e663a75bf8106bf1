"""Positions whose prediction is confident and has stopped changing (KLASS).

Shape suffixes: B batch, L positions, V vocabulary, R masked positions of the batch, H calls that are remembered.
"""

from dataclasses import dataclass

import torch

from .. import certainty
from ..canvas import StepInput
from ..counts import llada_revealed
from ..plan import StepPlan
from .blocks import Block, current_block
from .options import Option
from .own_step import OwnStep
from .remembered import Rows


_TINY = 1e-12  # inside the logarithms of the authors' code


@dataclass
class _Memory:
    """What is remembered of the call before: its block and laws, and the KLs of the last H calls."""

    block: Block
    laws: Rows
    kl_BLH: torch.Tensor


class KLASS(OwnStep):
    """All tokens whose largest probability is above `confidence_threshold`, and whose law moved by less than
    `kl_threshold` nats in each of the last `history_length` calls (KLASS, https://huggingface.co/papers/2511.05664).
    One call a step.

    If there are none, it reveals the most confident ones, as many as LLaDA's counts say. No position can be ready
    before call `history_length + 1` (the first call is compared with nothing), so it needs many calls. It adapts to
    each sequence, and is done when nothing is masked; the last call reveals what is left. `reveals` says which of the
    ready tokens are revealed: `"all"`, or the one with the largest probability (`"max_conf"`) or the least KL
    (`"min_kl"`).

    With a `block_length` it goes through blocks of the canvas from left to right, and a later block remembers the
    calls for those before, as in the authors' code. In a generation from a prompt the pipeline's own blocks begin
    anew. It keeps the laws of all masked positions in float64 from one call to the next.
    """

    name = "klass"
    options = {
        "confidence_threshold": Option(0.9, 0, 1),
        "kl_threshold": Option(0.01, 0),
        "history_length": Option(2, 1),
        "reveals": Option("all", choices=("all", "max_conf", "min_kl")),
        "block_length": Option(0, 0),
    }

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        """State: a `_Memory`."""
        (v_BL,) = x.uniforms(1)
        memory = x.canvas.state
        block = current_block(x, plan, plan.options["block_length"], memory and memory.block)
        row_R, position_R = x.masked_BL.nonzero(as_tuple=True)
        p_RV = certainty.laws(x.rated_logits(), row_R, position_R, x.mask_token_id)
        confidence_BL = x.spread(row_R, position_R, p_RV.amax(-1), 0.0)
        kl_BLH = self._history(x, p_RV, row_R, position_R, plan.options["history_length"])
        x.canvas.state = _Memory(block, Rows.of(p_RV, x.masked_BL), kl_BLH)
        due_BL = x.masked_BL if x.is_last else self._due(plan, block, confidence_BL, kl_BLH)
        return x.reveal(due_BL, v_BL)

    def _history(
        self, x: StepInput, p_RV: torch.Tensor, row_R: torch.Tensor, position_R: torch.Tensor, length: int
    ) -> torch.Tensor:
        """How far the law of each position moved in the last calls, the latest at the end. `(B, L, H)`."""
        memory, before_RV = x.canvas.state, torch.zeros_like(p_RV)
        if memory is None:
            kl_BLH = torch.zeros(*x.sample_BL.shape, length, dtype=torch.float64, device=p_RV.device)
        else:
            kl_BLH, before_RV = memory.kl_BLH, memory.laws.at(row_R, position_R)
        kl_R = (p_RV * ((p_RV + _TINY).log() - (before_RV + _TINY).log())).sum(-1)
        return torch.cat([kl_BLH[..., 1:], x.spread(row_R, position_R, kl_R, torch.inf)[..., None]], dim=-1)

    def _due(self, plan: StepPlan, block: Block, confidence_BL: torch.Tensor, kl_BLH: torch.Tensor) -> torch.Tensor:
        """The positions of a step that is not the last of all, `(B, L)`."""
        options, active_BL = plan.options, block.active_BL
        stable_BL = (kl_BLH < options["kl_threshold"]).all(-1)
        stable_BL &= (block.step_B >= options["history_length"] - 1)[:, None]
        ready_BL = active_BL & stable_BL & (confidence_BL > options["confidence_threshold"])
        if options["reveals"] != "all":
            score_BL = confidence_BL if options["reveals"] == "max_conf" else -kl_BLH[..., -1]
            ready_BL &= certainty.ranks(score_BL.masked_fill(~ready_BL, -torch.inf)) == 0
        num_B = llada_revealed(block.size_B, block.step_B, block.share_B).clamp(min=1)
        place_BL = certainty.ranks(confidence_BL.masked_fill(~active_BL, -torch.inf))
        surest_BL = active_BL & (place_BL < num_B[:, None])
        due_BL = torch.where(ready_BL.any(1, keepdim=True), ready_BL, surest_BL)
        return torch.where(block.is_last_B[:, None], active_BL, due_BL)
