"""Distillation: `distill(pipeline, DistillConfig(...))`. A new method is its own file, registered in `METHODS`."""

from . import choice, jys, lsd, lsd_plus, path_kl  # noqa: F401  (they register themselves)
from .config import METHODS, DistillConfig
from .distill import distill


__all__ = ["METHODS", "DistillConfig", "distill"]
