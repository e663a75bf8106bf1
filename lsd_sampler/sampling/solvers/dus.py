import torch

from ..canvas import StepInput
from ..orders.levels import dilated_levels, joined_if_smaller, level_sizes, midpoint_levels
from ..plan import StepPlan
from .options import Option
from .own_step import OwnStep


class DUS(OwnStep):
    """One level of a fixed grid a call (DUS, https://huggingface.co/papers/2506.19037), as in the authors' code:
    `"dilated"` levels, whose spacing begins at `length // base^base_skip` and shrinks by `base`, or `"binary"` ones,
    midpoints. A last level that is smaller than the one before it joins that one. One call a step.

    Tokens of a level that are drawn with a probability below `remask_below` stay masked, and join the next level; the
    last level reveals them all. (The authors leave them masked for ever.) It is done when there are no more levels;
    the last call reveals what is left. In a generation from a prompt each block of the pipeline has levels of its own.
    The orders `dus` and `bisection` take any number of calls.
    """

    name = "dus"
    options = {
        "levels": Option("dilated", choices=("dilated", "binary")),
        "base": Option(2, 1),
        "base_skip": Option(1, 1),
        "remask_below": Option(0.0, 0, 1),
    }

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        """State: the level of each position, `(B, L)`, and the number of levels, `(B,)`."""
        (v_BL,) = x.uniforms(1)
        if x.canvas.state is None:
            level_BL = self.levels(x.canvas.masked_BL, plan)
            x.canvas.state = level_BL, (level_sizes(level_BL, x.canvas.masked_BL) > 0).sum(1)
        level_BL, num_B = x.canvas.state
        call = x.k - x.canvas.start
        due_BL = x.masked_BL if x.is_last else x.masked_BL & (level_BL <= call)
        candidate_BL, log_prob_BL, confidence_BL = x.draw_rated(due_BL, v_BL)
        if not x.is_last:
            sure_BL = confidence_BL.exp() >= plan.options["remask_below"]
            due_BL = due_BL & (sure_BL | (call >= num_B - 1)[:, None])
        next_BL = torch.where(due_BL, candidate_BL, x.sample_BL)
        return next_BL, log_prob_BL.exp().float().masked_fill(~due_BL, 0)

    def levels(self, masked_BL: torch.Tensor, plan: StepPlan) -> torch.Tensor:
        """The level of each masked position, `(B, L)`."""
        if plan.options["levels"] == "dilated":
            return dilated_levels(masked_BL, plan.options["base"], plan.options["base_skip"])
        return joined_if_smaller(midpoint_levels(masked_BL), masked_BL)
