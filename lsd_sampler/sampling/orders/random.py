import torch

from .base import Order


class RandomOrder(Order):
    """Uniformly random: every masked position is equally likely to be next, as in the CTMC."""

    name = "random"
    exchangeable = True

    def keys(self, u_BL: torch.Tensor, shift_B2: torch.Tensor, canvas_shape: tuple[int, ...]) -> torch.Tensor:
        return u_BL
