"""Distillation: `distill(pipeline, DistillConfig(...))`. Training methods are in `methods`."""

from .config import DistillConfig
from .distill import distill
from .methods import METHODS


__all__ = ["METHODS", "DistillConfig", "distill"]
