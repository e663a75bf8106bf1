"""Tiny SEDD, MDLM and RADD models with random weights, for tests."""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from lsd_sampler.denoisers import Denoiser, MDLMDenoiser, RADDDenoiser, SEDDDenoiser
from lsd_sampler.denoisers.ddit import DDiTDenoiser


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

SMALL_RADD: dict[str, Any] = {
    "tokens": 5,
    "noise": {"type": "loglinear", "sigma_min": 1e-4, "sigma_max": 20},
    "model": {"type": "ddit_wot", "hidden_size": 8, "n_heads": 2, "n_blocks": 2, "length": 6, "dropout": 0.1},
    "untouched": {"any": ["thing"]},
}


def make(name: str, config: dict[str, Any] | None = None) -> Denoiser:
    """A model with random weights, in evaluation mode; adaptive layers included, so that all of it matters."""
    return _CLASSES[name.split("-")[0]](config or CONFIGS[name]).eval()


def same_weights(model: Denoiser, other: Denoiser) -> bool:
    mine, others = model.state_dict(), other.state_dict()
    return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)


def lightning(model: Denoiser, shadow: list[torch.Tensor] | None, **further: Any) -> dict[str, Any]:
    """What MDLM's trainer saves of a model, with its averaged parameters."""
    state = OrderedDict((f"backbone.{name}", tensor) for name, tensor in model.state_dict().items())
    ema = {} if shadow is None else {"ema": {"decay": 0.9999, "num_updates": 3, "shadow_params": shadow}}
    return {"state_dict": state, "epoch": 1, "optimizer_states": [{"state": {}}], **ema, **further}


def canvas(model: Denoiser, batch_size: int = 3) -> torch.Tensor:
    """Random ids, with and without masks; the first row is masked throughout."""
    tokens = torch.randint(model.vocab_size + (model.mask_token_id is not None), (batch_size, model.length))
    if model.mask_token_id is not None:
        tokens[0] = model.mask_token_id
    return tokens


def time_of(model: Denoiser, sigma: torch.Tensor) -> torch.Tensor:
    return model.noise.inverse_alpha(torch.exp(-sigma.double()))


def activations(model: DDiTDenoiser, tokens: torch.Tensor, sigma: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the time embedding and the blocks give."""
    seen: dict[str, torch.Tensor] = {}
    parts = {"sigma_map": model.sigma_map, **{f"block_{i}": block for i, block in enumerate(model.blocks)}}
    hooks = [
        part.register_forward_hook(lambda _m, _x, out, name=name: seen.update({f"act.{name}": out}))
        for name, part in parts.items()
    ]
    model.logits(tokens, sigma)
    for hook in hooks:
        hook.remove()
    return seen


def save(name: str, folder: Path, config: dict[str, Any] | None = None) -> Denoiser:
    """Saves a model with random weights, and another config over its own."""
    model = make(name)
    model.save_pretrained(folder)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return model


def save_small_radd(folder: Path) -> Path:
    """A small RADD checkpoint with a tokenizer."""
    model = RADDDenoiser(SMALL_RADD)
    model.save_pretrained(folder)
    words = Tokenizer(WordLevel({w: i for i, w in enumerate("abcde")}, unk_token="a"))
    words.pre_tokenizer = Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    words.save(str(folder / "tokenizer.json"))
    return folder
