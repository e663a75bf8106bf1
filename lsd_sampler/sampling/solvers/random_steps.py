import torch

from .. import certainty
from ..canvas import StepInput
from ..plan import StepPlan
from .own_step import OwnStep


class RandomSteps(OwnStep):
    """Random positions, and a random number of them in each call, whatever the data (after
    https://huggingface.co/papers/2602.20126). One call a step.

    The paper's law of the numbers was not at hand. This is a stand-in of ours: M - 1 distinct cut points among the
    n - 1 places between n masked positions, all sets of them alike. A sequence of fewer masks than calls reveals one
    a call, and is done.
    """

    name = "random_steps"

    def advance(self, x: StepInput, plan: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        """State: how many tokens of each sequence are known after each call, `(B, L)`."""
        if x.canvas.state is None:
            (cut_BL,) = x.uniforms(1)
            x.canvas.state = cuts(x.canvas.masked_BL.sum(1), len(plan.places) - x.canvas.start, cut_BL)
        call = min(x.k - x.canvas.start, x.sample_BL.shape[1] - 1)
        due_BL = x.canvas.rank_BL < x.canvas.state[:, call, None]
        return x.reveal(x.masked_BL if x.is_last else x.masked_BL & due_BL, x.canvas.v_BL)


def cuts(num_B: torch.Tensor, num_calls: int, uniform_BL: torch.Tensor) -> torch.Tensor:
    """`num_calls - 1` of the numbers from 1 to `num - 1`, in ascending order, and then `num` itself. `(B, L)`."""
    place_L = torch.arange(uniform_BL.shape[1], device=uniform_BL.device)
    possible_BL = (place_L > 0) & (place_L < num_B[:, None])
    rank_BL = certainty.ranks(uniform_BL.masked_fill(~possible_BL, -torch.inf))
    return torch.where(possible_BL & (rank_BL < num_calls - 1), place_L, num_B[:, None]).sort(dim=1).values
