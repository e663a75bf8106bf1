import torch

from .. import certainty
from ..canvas import StepInput
from ..plan import StepPlan
from ..spacing import spaced
from .options import Option
from .own_step import OwnStep


class EntropyBounded(OwnStep):
    """As many tokens as are nearly independent (EB-Sampler, https://huggingface.co/papers/2505.24857): of the masked
    positions, surest first, the most whose entropies add up to at most `gamma`, the largest not counted; at least one.
    One call a step.

    The sum bounds the error of drawing them at once. `proxy` says which are the surest: those of least `"entropy"`,
    largest top probability (`"confidence"`) or largest lead of the most likely token (`"margin"`). It adapts to each
    sequence and is done when nothing is masked, perhaps before the last step. The last step reveals what is left, so
    too few steps for `gamma` spoil it. It is a good choice for sharp conditional laws, such as code or answers; if all
    positions are uncertain, it reveals them one by one.
    """

    name = "entropy_bounded"
    takes_gap = True
    options = {"gamma": Option(0.1, 0), "proxy": Option("entropy", choices=("entropy", "confidence", "margin"))}

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        (v_BL,) = x.uniforms(1)
        due_BL = x.masked_BL if x.is_last else self.due(x, plan)
        return x.reveal(due_BL, v_BL)

    def due(self, x: StepInput, plan: StepPlan) -> torch.Tensor:
        """The masked positions that the bound lets through, `(B, L)`."""
        row_R, position_R = x.masked_BL.nonzero(as_tuple=True)
        rows = x.rated_logits(), row_R, position_R, x.mask_token_id
        entropy_R = certainty.of_rows(certainty.entropy, *rows)
        score_R = -entropy_R
        if plan.options["proxy"] != "entropy":
            measure = {"confidence": certainty.top_probability, "margin": certainty.margin}[plan.options["proxy"]]
            score_R = certainty.of_rows(measure, *rows)
        rank_BL = certainty.ranks(x.spread(row_R, position_R, score_R, -torch.inf))
        entropy_BL = x.spread(row_R, position_R, entropy_R, 0.0)
        sorted_BL = torch.zeros_like(entropy_BL).scatter(1, rank_BL, entropy_BL)
        error_BL = sorted_BL.cumsum(1) - sorted_BL.cummax(1).values
        due_BL = x.masked_BL & (error_BL.gather(1, rank_BL) <= plan.options["gamma"])
        return spaced(rank_BL, due_BL, x, plan.minimal_gap)
