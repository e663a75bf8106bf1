"""Few-step samplers for masked discrete diffusion models, as diffusers schedulers."""

from .denoisers import Denoiser, load_denoiser
from .pipeline_masked_diffusion import MaskedDiffusionPipeline, MaskedDiffusionPipelineOutput
from .scheduling_lsd import LSDScheduler, LSDSchedulerOutput
from .training import DistillConfig, distill


__version__ = "0.1.0"

__all__ = [
    "Denoiser",
    "DistillConfig",
    "LSDScheduler",
    "LSDSchedulerOutput",
    "MaskedDiffusionPipeline",
    "MaskedDiffusionPipelineOutput",
    "distill",
    "load_denoiser",
]
