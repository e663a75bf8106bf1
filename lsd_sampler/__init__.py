"""Few-step samplers for masked discrete diffusion models, as diffusers schedulers."""

from .scheduling_lsd import LSDScheduler, LSDSchedulerOutput


__version__ = "0.1.0"

__all__ = ["LSDScheduler", "LSDSchedulerOutput"]
