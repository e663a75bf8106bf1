"""Orders of revealing. A new one is its own file and one line here."""

from ..registry import Registry
from .base import Order
from .confidence import ConfidenceOrder
from .halton import HaltonOrder
from .halton_maskgit import HaltonMaskGITOrder
from .random import RandomOrder


ORDERS: Registry[Order] = Registry("order")
for _order in (RandomOrder(), HaltonOrder(), HaltonMaskGITOrder(), ConfidenceOrder()):
    ORDERS.register(_order.name, _order)

__all__ = ["ORDERS", "ConfidenceOrder", "HaltonMaskGITOrder", "HaltonOrder", "Order", "RandomOrder"]
