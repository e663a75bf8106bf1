"""`load_denoiser`: any name or path to a denoiser. A new family is its own file and one line here."""

import difflib
import inspect
import os
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from ..hub import is_hub_id
from ..registry import Registry
from .base import Denoiser, parse_dtype
from .ctmc import CTMCDenoiser
from .files import PIPELINE_NAME, Checkpoint, open_checkpoint, read_json
from .markov import MarkovDenoiser, is_oracle_spec, make_oracle
from .masked_lm import MaskedLMDenoiser
from .maskgit import MaskGITDenoiser
from .mdlm import MDLMDenoiser
from .radd import RADDDenoiser
from .sedd import SEDDDenoiser


class HubModel(NamedTuple):
    """A published checkpoint: its family, where it lies, and which file of several it is."""

    family: str
    hub_id: str
    file: str | None = None


DENOISERS: Registry[type[Denoiser]] = Registry("family")
DENOISERS.register("markov", MarkovDenoiser)
DENOISERS.register("radd", RADDDenoiser)
DENOISERS.register("sedd", SEDDDenoiser)
DENOISERS.register("mdlm", MDLMDenoiser)
DENOISERS.register("masked_lm", MaskedLMDenoiser)
DENOISERS.register("maskgit", MaskGITDenoiser)
DENOISERS.register("ctmc", CTMCDenoiser)

SHORT_NAMES = {
    "radd": HubModel("radd", "JingyangOu/radd-lambda-dce"),
    "radd-t": HubModel("radd", "JingyangOu/radd-t-dce"),
    "radd-medium": HubModel("radd", "JingyangOu/radd-lambda-dce-medium"),
    "sedd-small": HubModel("sedd", "louaaron/sedd-small"),
    "sedd-medium": HubModel("sedd", "louaaron/sedd-medium"),
    "mdlm": HubModel("mdlm", "kuleshov-group/mdlm-owt"),
    "mdlm-no-flashattn": HubModel("mdlm", "kuleshov-group/mdlm-no_flashattn-fp32-owt"),
    "llada-8b": HubModel("masked_lm", "GSAI-ML/LLaDA-8B-Base"),
    "llada-8b-instruct": HubModel("masked_lm", "GSAI-ML/LLaDA-8B-Instruct"),
    "dream-7b": HubModel("masked_lm", "Dream-org/Dream-v0-Base-7B"),
    "dream-7b-instruct": HubModel("masked_lm", "Dream-org/Dream-v0-Instruct-7B"),
    "diffugpt-s": HubModel("masked_lm", "diffusionfamily/diffugpt-s"),
    "diffugpt-m": HubModel("masked_lm", "diffusionfamily/diffugpt-m"),
    "diffullama": HubModel("masked_lm", "diffusionfamily/diffullama"),
    "halton-maskgit-256-tiny": HubModel("maskgit", "llvictorll/Halton-Maskgit", "ImageNet_256_tiny.pth"),
    "halton-maskgit-256-small": HubModel("maskgit", "llvictorll/Halton-Maskgit", "ImageNet_256_small.pth"),
    "halton-maskgit-256-base": HubModel("maskgit", "llvictorll/Halton-Maskgit", "ImageNet_256_base.pth"),
    "halton-maskgit-384-small": HubModel("maskgit", "llvictorll/Halton-Maskgit", "ImageNet_384_small.pth"),
    "halton-maskgit-384-base": HubModel("maskgit", "llvictorll/Halton-Maskgit", "ImageNet_384_base.pth"),
    "halton-maskgit-384-large": HubModel("maskgit", "llvictorll/Halton-Maskgit", "ImageNet_384_large.pth"),
}


def available_names() -> list[str]:
    """The short names that [`load_denoiser`] can load."""
    return ["countdown", "markov:..."] + [n for n, model in SHORT_NAMES.items() if model.family in DENOISERS.names()]


def load_denoiser(
    name_or_path: str | os.PathLike,
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    trust_remote_code: bool = False,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    weight_name: str | None = None,
    **options: Any,
) -> Denoiser:
    r"""
    Loads a denoiser, in evaluation mode.

    Args:
        name_or_path (`str` or `os.PathLike`): one of
            - a local folder, or a file of weights, in the official format of its family (recognised by its content),
              or a saved pipeline;
            - a Hub id of such a folder;
            - a short name, such as `radd`;
            - an exact oracle: `countdown`, `countdown:V=16,L=64`, `markov:V=3,L=3,seed=0` or `markov:FILE.json`.
        revision, subfolder, token, cache_dir, local_files_only, force_download (*optional*): where and how to look on
            the Hub.
        device (`str` or `torch.device`, *optional*): where to put it; default: the CPU.
        dtype (`torch.dtype` or `str`, *optional*): precision of the weights; default: as stored. Oracles keep float64.
        trust_remote_code (`bool`, defaults to `False`): whether code of the repository may run.
        weight_name (`str`, *optional*): the file of weights, where a folder or repository holds several.
        options: of the family.

    Returns:
        [`~lsd_sampler.denoisers.Denoiser`]

    Raises:
        OSError: if a folder, file or repository is missing or out of reach; the message names it.
        ValueError: for an unknown name (with the nearest known one), an unsupported family, or a damaged file.
        TypeError: for an option that the family does not have.
    """
    name = os.fspath(name_or_path)
    if is_oracle_spec(name):
        parse_dtype(dtype)
        denoiser: Denoiser = make_oracle(name).eval()
    else:
        location = hub_location(name)
        if weight_name is None and location != name:
            weight_name = SHORT_NAMES[name].file
        checkpoint = open_checkpoint(
            location, file=weight_name, trust_remote_code=trust_remote_code, revision=revision, subfolder=subfolder,
            token=token, cache_dir=cache_dir, local_files_only=local_files_only, force_download=force_download,
        )  # fmt: skip
        if PIPELINE_NAME in checkpoint.names:
            checkpoint = replace(checkpoint, folder=checkpoint.folder / "denoiser")
        family = _family_of(checkpoint, name)
        _check_options(family, options)
        denoiser = family.from_pretrained(
            checkpoint.folder, weight_name=checkpoint.file, trust_remote_code=trust_remote_code, dtype=dtype, **options
        )
        name = location
    denoiser.name_or_path = name
    if device is not None:
        torch.nn.Module.to(denoiser, device)  # in place; the typed signature of ModelMixin.to lacks its arguments
    return denoiser


def hub_location(name: str) -> str:
    """The Hub id behind a short name; a folder or Hub id is returned as it is.

    Raises:
        ValueError: for an unknown name, or one whose family is not supported.
    """
    if os.path.exists(os.path.expanduser(name)) or is_hub_id(name):
        return name
    if name in SHORT_NAMES:
        family, hub_id, _ = SHORT_NAMES[name]
        if family not in DENOISERS.names():
            known = ", ".join(available_names())
            raise ValueError(f"{name!r} ({hub_id}) is not supported yet. Short names that work: {known}.")
        return hub_id
    if os.sep in name or name.startswith((".", "~")):
        return name  # a path: whoever opens it says that it is missing
    near = difflib.get_close_matches(name.lower(), [*SHORT_NAMES, "countdown", "markov:"], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    known = ", ".join(available_names())
    raise ValueError(f"`name_or_path` {name!r} is no local folder, Hub id or short name ({known}).{hint}")


def _family_of(checkpoint: Checkpoint, name: str) -> type[Denoiser]:
    for family in DENOISERS.names():
        if DENOISERS[family].recognises(checkpoint):
            return DENOISERS[family]
    if not checkpoint.config:
        read_json(checkpoint.config_file)  # says that it is missing
    raise ValueError(f"{name!r} is a checkpoint of no known family ({', '.join(DENOISERS.names())}).")


def _check_options(family: type[Denoiser], options: dict[str, Any]) -> None:
    known = [*inspect.signature(family._from_checkpoint).parameters][1:]
    for option in options:
        if option not in known:
            raise TypeError(f"`load_denoiser` got an unknown option `{option}`; {family.__name__} has {known}.")
