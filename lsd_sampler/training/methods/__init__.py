"""Training methods. A new one is its own file and one line here."""

from ..method import METHODS
from .auto import Auto
from .forced_kl import ForcedKL
from .jys import JYS
from .lsd import LSD
from .lsd_plus import LSDPlus
from .path_kl import PathKL


for _method in (PathKL(), ForcedKL(), LSD(), LSDPlus(), JYS(), Auto()):
    METHODS.register(_method.name, _method)

__all__ = ["JYS", "LSD", "METHODS", "Auto", "ForcedKL", "LSDPlus", "PathKL"]
