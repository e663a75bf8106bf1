"""Few-step samplers for masked discrete diffusion models, as diffusers schedulers."""

from .denoisers import Denoiser, load_denoiser
from .pipeline_masked_diffusion import MaskedDiffusionPipeline, MaskedDiffusionPipelineOutput
from .sampling.scheduling_dndm import DNDMScheduler, DNDMSchedulerOutput
from .scheduling_lsd import LSDScheduler, LSDSchedulerOutput
from .support.version import __version__
from .training import DistillConfig, distill


__all__ = [
    "DNDMScheduler",
    "DNDMSchedulerOutput",
    "Denoiser",
    "DistillConfig",
    "LSDScheduler",
    "LSDSchedulerOutput",
    "MaskedDiffusionPipeline",
    "MaskedDiffusionPipelineOutput",
    "__version__",
    "distill",
    "load_denoiser",
]
