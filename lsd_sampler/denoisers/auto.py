"""`load_denoiser`: any name or path to a denoiser. A new family is its own file and one line here."""

import difflib
import os
from typing import NamedTuple

import torch

from ..hub import is_hub_id
from ..registry import Registry
from .base import Denoiser, parse_dtype
from .files import CONFIG_NAME, PIPELINE_NAME, read_json, resolve_folder
from .markov import MarkovDenoiser, is_oracle_spec, make_oracle
from .radd import RADDDenoiser


class HubModel(NamedTuple):
    """A published checkpoint: its family and where it lies."""

    family: str
    hub_id: str


DENOISERS: Registry[type[Denoiser]] = Registry("family")
DENOISERS.register("markov", MarkovDenoiser)
DENOISERS.register("radd", RADDDenoiser)

SHORT_NAMES = {
    "radd": HubModel("radd", "JingyangOu/radd-lambda-dce"),
    "radd-t": HubModel("radd", "JingyangOu/radd-t-dce"),
    "radd-medium": HubModel("radd", "JingyangOu/radd-lambda-dce-medium"),
    "sedd-small": HubModel("sedd", "louaaron/sedd-small"),
    "sedd-medium": HubModel("sedd", "louaaron/sedd-medium"),
    "mdlm": HubModel("mdlm", "kuleshov-group/mdlm-owt"),
    "llada-8b": HubModel("llada", "GSAI-ML/LLaDA-8B-Base"),
    "llada-8b-instruct": HubModel("llada", "GSAI-ML/LLaDA-8B-Instruct"),
    "dream-7b": HubModel("dream", "Dream-org/Dream-v0-Base-7B"),
    "dream-7b-instruct": HubModel("dream", "Dream-org/Dream-v0-Instruct-7B"),
    "diffugpt-s": HubModel("diffullama", "diffusionfamily/diffugpt-s"),
    "diffugpt-m": HubModel("diffullama", "diffusionfamily/diffugpt-m"),
    "diffullama": HubModel("diffullama", "diffusionfamily/diffullama"),
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
) -> Denoiser:
    r"""
    Loads a denoiser, in evaluation mode.

    Args:
        name_or_path (`str` or `os.PathLike`): one of
            - a local folder in the official format of its family (recognised by its content), or a saved pipeline;
            - a Hub id of such a folder;
            - a short name, such as `radd`;
            - an exact oracle: `countdown`, `countdown:V=16,L=64`, `markov:V=3,L=3,seed=0` or `markov:FILE.json`.
        revision, subfolder, token, cache_dir, local_files_only (*optional*): where and how to look on the Hub.
        device (`str` or `torch.device`, *optional*): where to put it; default: the CPU.
        dtype (`torch.dtype` or `str`, *optional*): precision of the weights; default: as stored. Oracles keep float64.
        trust_remote_code (`bool`): no family runs code from the Hub; accepted so that callers can pass it on.

    Returns:
        [`~lsd_sampler.denoisers.Denoiser`]

    Raises:
        OSError: if a folder, file or repository is missing or out of reach; the message names it.
        ValueError: for an unknown name (with the nearest known one), an unsupported family, or a damaged file.
    """
    name = os.fspath(name_or_path)
    if is_oracle_spec(name):
        parse_dtype(dtype)
        denoiser: Denoiser = make_oracle(name).eval()
    else:
        location = hub_location(name)
        folder = resolve_folder(
            location, revision=revision, subfolder=subfolder, token=token, cache_dir=cache_dir,
            local_files_only=local_files_only,
        )  # fmt: skip
        if (folder / PIPELINE_NAME).is_file():
            folder = folder / "denoiser"
        config, files = read_json(folder / CONFIG_NAME), {path.name for path in folder.iterdir()}
        denoiser = _family_of(config, files, name).from_pretrained(folder, dtype=dtype)
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
    if os.path.isdir(os.path.expanduser(name)) or is_hub_id(name):
        return name
    if name in SHORT_NAMES:
        family, hub_id = SHORT_NAMES[name]
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


def _family_of(config: dict, files: set[str], name: str) -> type[Denoiser]:
    for family in DENOISERS.names():
        if DENOISERS[family].recognises(config, files):
            return DENOISERS[family]
    raise ValueError(f"{name!r} is a checkpoint of no known family ({', '.join(DENOISERS.names())}).")
