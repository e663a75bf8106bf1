"""Tiny SEDD, MDLM and RADD models with random weights, for tests."""

from collections import OrderedDict
from typing import Any

import torch

from lsd_sampler.denoisers import Denoiser, MDLMDenoiser, RADDDenoiser, SEDDDenoiser


SIZES = {"hidden_size": 16, "n_heads": 2, "n_blocks": 2, "cond_dim": 6, "length": 8, "dropout": 0.1}
LOG_LINEAR = {"type": "loglinear", "sigma_min": 1e-4, "sigma_max": 20}

SEDD_ABSORB: dict[str, Any] = {
    "tokens": 7, "graph": {"type": "absorb"}, "noise": LOG_LINEAR,
    "model": {"type": "ddit", **SIZES, "scale_by_sigma": True}, "untouched": [1],
}  # fmt: skip
SEDD_UNIFORM: dict[str, Any] = {
    **SEDD_ABSORB, "graph": {"type": "uniform"}, "noise": {**LOG_LINEAR, "type": "geometric"},
    "model": {**SEDD_ABSORB["model"], "scale_by_sigma": False},
}  # fmt: skip
MDLM_HUB: dict[str, Any] = {
    "model_type": "mdlm", "vocab_size": 8, "hidden_dim": 16, "cond_dim": 6, "n_blocks": 2, "n_heads": 2,
    "model_length": 8, "dropout": 0.1, "time_conditioning": False, "return_dict": False, "untouched": [1],
}  # fmt: skip
MDLM_TIME: dict[str, Any] = {**MDLM_HUB, "time_conditioning": True}
MDLM_REPOSITORY: dict[str, Any] = {
    "vocab_size": 8,
    "config": {
        "model": {"type": "ddit", **SIZES}, "backbone": "dit", "parameterization": "subs", "time_conditioning": False,
        "noise": LOG_LINEAR, "untouched": [1],
    },
}  # fmt: skip
MDLM_SCORES: dict[str, Any] = {
    **MDLM_REPOSITORY,
    "config": {**MDLM_REPOSITORY["config"], "parameterization": "sedd", "time_conditioning": True},
}
MDLM_D3PM: dict[str, Any] = {
    **MDLM_REPOSITORY,
    "config": {**MDLM_REPOSITORY["config"], "parameterization": "d3pm"},
}
RADD: dict[str, Any] = {"tokens": 7, "noise": LOG_LINEAR, "model": {"type": "ddit_wot", **SIZES}}

CONFIGS = {
    "sedd": SEDD_ABSORB, "sedd-uniform": SEDD_UNIFORM, "mdlm": MDLM_HUB, "mdlm-time": MDLM_TIME,
    "mdlm-repository": MDLM_REPOSITORY, "mdlm-scores": MDLM_SCORES, "mdlm-d3pm": MDLM_D3PM, "radd": RADD,
}  # fmt: skip
MASKED = [name for name in CONFIGS if name != "sedd-uniform"]
_CLASSES: dict[str, type[SEDDDenoiser | MDLMDenoiser | RADDDenoiser]] = {
    "sedd": SEDDDenoiser, "mdlm": MDLMDenoiser, "radd": RADDDenoiser,
}  # fmt: skip


def make(name: str) -> Denoiser:
    """A model with random weights, in evaluation mode; adaptive layers included, so that all of it matters."""
    return _CLASSES[name.split("-")[0]](CONFIGS[name]).eval()


def same_weights(model: Denoiser, other: Denoiser) -> bool:
    mine, others = model.state_dict(), other.state_dict()
    return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)


def lightning(model: Denoiser, shadow: list[torch.Tensor] | None, **further: Any) -> dict[str, Any]:
    """What MDLM's trainer saves of a model, with its averaged parameters."""
    state = OrderedDict((f"backbone.{name}", tensor) for name, tensor in model.state_dict().items())
    ema = {} if shadow is None else {"ema": {"decay": 0.9999, "num_updates": 3, "shadow_params": shadow}}
    return {"state_dict": state, "epoch": 1, "optimizer_states": [{"state": {}}], **ema, **further}
