"""Solvers. A new one is its own file and one line here."""

from ..registry import Registry
from .base import Solver
from .euler import Euler
from .own_step import OwnStep
from .tweedie import Tweedie


SOLVERS: Registry[Solver] = Registry("solver")
for _solver in (Tweedie(), Euler()):
    SOLVERS.register(_solver.name, _solver)

__all__ = ["SOLVERS", "Euler", "OwnStep", "Solver", "Tweedie"]
