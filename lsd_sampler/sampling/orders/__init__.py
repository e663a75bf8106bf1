"""Orders of revealing. A new one is its own file and one line here."""

from ...support.registry import Registry
from .adaptive import AdaptiveOrder
from .base import Order
from .bisection import BisectionOrder
from .by_logits import (
    ConfidenceOrder,
    EntropyOrder,
    LogitOrder,
    MarginOrder,
    ProbabilityOrder,
    SurestFirst,
    gumbel_top,
)
from .dus import DilatedOrder
from .halton import HaltonOrder
from .halton_maskgit import HaltonMaskGITOrder
from .levels import LevelOrder
from .random import RandomOrder


ORDERS: Registry[Order] = Registry("order")
for _order in (
    RandomOrder(), HaltonOrder(), HaltonMaskGITOrder(), ConfidenceOrder(), ProbabilityOrder(), MarginOrder(),
    EntropyOrder(), AdaptiveOrder(), DilatedOrder(), BisectionOrder(),
):  # fmt: skip
    ORDERS.register(_order.name, _order)

__all__ = [
    "ORDERS", "AdaptiveOrder", "BisectionOrder", "ConfidenceOrder", "DilatedOrder", "EntropyOrder",
    "HaltonMaskGITOrder", "HaltonOrder", "LevelOrder", "LogitOrder", "MarginOrder", "Order", "ProbabilityOrder",
    "RandomOrder", "SurestFirst", "gumbel_top",
]  # fmt: skip
