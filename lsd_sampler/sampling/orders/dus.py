import torch

from .levels import LevelOrder, dilated_levels


class DilatedOrder(LevelOrder):
    """A dilated grid, finer from level to level (DUS, https://huggingface.co/papers/2506.19037): first positions half
    a canvas apart, then half of that, and the positions between the last ones at the end.

    With `count="levels"` it takes about `log2(L) + 1` calls. On a first-order chain whose length is a power of two,
    only the first of them can err: it reveals two positions half a chain apart. `bisection` never errs there.
    """

    name = "dus"

    def levels(self, masked_BL: torch.Tensor) -> torch.Tensor:
        return dilated_levels(masked_BL)
