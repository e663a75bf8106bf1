"""What an order is: which masked positions are revealed first."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch


class Order(ABC):
    """An order that is fixed when a canvas arrives, before any logits are seen."""

    name: ClassVar[str]
    looks_at_logits: ClassVar[bool] = False
    exchangeable: ClassVar[bool] = False
    """Whether every set of positions of one size is equally likely to come first."""

    @abstractmethod
    def keys(self, u_BL: torch.Tensor, shift_B2: torch.Tensor, canvas_shape: tuple[int, ...]) -> torch.Tensor:
        """Sort keys `(batch_size, seq_len)`: masked positions are revealed in ascending order of their key.

        Args:
            u_BL (`torch.DoubleTensor` of shape `(batch_size, seq_len)`): independent uniforms.
            shift_B2 (`torch.DoubleTensor` of shape `(batch_size, 2)`): two more uniforms for each row.
            canvas_shape: `(seq_len,)` or `(height, width)`.
        """
