"""Distillations of pipelines around exact chains."""

from typing import Any

import torch

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill
from lsd_sampler.denoisers import MarkovDenoiser
from lsd_sampler.sampling.noise import Geometric


def pipeline_of(denoiser: torch.nn.Module, **scheduler: Any) -> MaskedDiffusionPipeline:
    return MaskedDiffusionPipeline(denoiser, LSDScheduler(**{**denoiser.scheduler_config(), **scheduler}))  # type: ignore[operator]


def seen_by(denoiser: torch.nn.Module) -> list[torch.Tensor]:
    """The canvases that the network is called with, from now on."""
    canvases: list[torch.Tensor] = []
    denoiser.register_forward_pre_hook(lambda _, args: canvases.append(args[0].clone()))
    return canvases


def learn(denoiser: torch.nn.Module, call: dict[str, Any] | None = None, **options: Any) -> LSDScheduler:
    return distill(pipeline_of(denoiser), DistillConfig(**{"method": "path_kl", **options}), **(call or {}))


def samples(
    denoiser: MarkovDenoiser, scheduler: LSDScheduler, steps: int, num: int = 1024, seed: int = 123
) -> torch.Tensor:
    pipe = MaskedDiffusionPipeline(denoiser, scheduler)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(seed)
    return pipe(num_samples=num, num_inference_steps=steps, generator=generator, output_type="ids").sequences


class Scored(MarkovDenoiser):
    """A chain whose prediction is off by a factor that depends on the canvas: raw logits, or an unnormalised score."""

    def __init__(self, chain: MarkovDenoiser, kind: str):
        super().__init__(chain.transition, chain.initial, chain.length)
        self.prediction_type = kind
        self.noise = Geometric(0.1, 3.0)
        self.time_conditioned = True  # so that raw logits too are asked for at every step, for all sequences

    @torch.no_grad()
    def forward(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(tokens) + self.log_factor(tokens)[:, None, None]

    def log_factor(self, tokens: torch.Tensor) -> torch.Tensor:
        known = (tokens != self.mask_token_id).sum(1).double()
        return torch.log((1 + known) / (1 + self.length - known))
