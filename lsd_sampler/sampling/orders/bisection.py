import torch

from .levels import LevelOrder, midpoint_levels


class BisectionOrder(LevelOrder):
    """The middle of each run of masked positions, then the middles of what is left, and so on (bisection sampler,
    https://huggingface.co/papers/2606.22976; the construction is ours, by its abstract).

    With `count="levels"` it takes `floor(log2 R) + 1` calls for a longest run of R masks. A known token then lies
    between any two positions of one call, so on first-order chains it is exact, whatever is given. That needs draws at
    temperature 1, without `top_p` or `top_k`.
    """

    name = "bisection"

    def levels(self, masked_BL: torch.Tensor) -> torch.Tensor:
        return midpoint_levels(masked_BL)
