"""`load_denoiser`: any name or path to a denoiser. A new family is its own file and one line here."""

import inspect
import os
from dataclasses import replace
from typing import Any

import torch

from ..support.hub import is_hub_id
from ..support.registry import Registry
from ..support.validation import did_you_mean
from .base import Denoiser, parse_dtype
from .ctmc import CTMCDenoiser
from .files import PIPELINE_NAME, Checkpoint, open_checkpoint, read_json
from .hidden_markov import HiddenMarkovDenoiser
from .markov import MarkovDenoiser
from .masked_lm import MaskedLMDenoiser
from .maskgit import MaskGITDenoiser
from .mdlm import MDLMDenoiser
from .model_type import missing_model_type
from .oracle_names import ORACLES, is_oracle_spec, make_oracle
from .published import SHORT_NAMES
from .radd import RADDDenoiser
from .sedd import SEDDDenoiser
from .table import TableDenoiser
from .translation import TranslationDenoiser


DENOISERS: Registry[type[Denoiser]] = Registry("family")
DENOISERS.register("markov", MarkovDenoiser)
DENOISERS.register("hmm", HiddenMarkovDenoiser)
DENOISERS.register("table", TableDenoiser)
DENOISERS.register("radd", RADDDenoiser)
DENOISERS.register("sedd", SEDDDenoiser)
DENOISERS.register("mdlm", MDLMDenoiser)
DENOISERS.register("masked_lm", MaskedLMDenoiser)
DENOISERS.register("maskgit", MaskGITDenoiser)
DENOISERS.register("ctmc", CTMCDenoiser)
DENOISERS.register("translation", TranslationDenoiser)


def available_names() -> list[str]:
    """The short names that [`load_denoiser`] can load."""
    return [*_oracle_names(), *SHORT_NAMES]


def _oracle_names() -> list[str]:
    return [name if ORACLES[name].make else f"{name}:..." for name in ORACLES.names()]


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
            - an exact oracle, with options: `countdown:V=16,L=64`, `markov:FILE.json`, `hmm:S=8,V=16,L=64`,
              `table:FILE`, `sudoku4:clues=4`, ... (`ORACLES` in `oracle_names.py` has them all).
        revision, subfolder, token, cache_dir, local_files_only, force_download (*optional*): where and how to look on
            the Hub.
        device (`str` or `torch.device`, *optional*): where to put it; default: the CPU.
        dtype (`torch.dtype` or `str`, *optional*): precision of the weights; default: as stored. Oracles keep float64.
        trust_remote_code (`bool`, defaults to `False`): whether code of the repository may run.
        weight_name (`str`, *optional*): the file of weights, where a folder or repository holds several.
        options: further options, which the family defines.

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
        location, checkpoint = find_checkpoint(
            name, weight_name=weight_name, trust_remote_code=trust_remote_code, revision=revision, subfolder=subfolder,
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


def find_checkpoint(
    name: str, *, weight_name: str | None = None, trust_remote_code: bool = False, **where: Any
) -> tuple[str, Checkpoint]:
    """The folder or Hub id that a name stands for, and the files there (fetched if need be).

    Args:
        name (`str`), weight_name, trust_remote_code: as for [`load_denoiser`].
        where: `revision`, `subfolder`, `token`, `cache_dir`, `local_files_only`, `force_download`.

    Raises:
        OSError: if they are missing or out of reach; for a short name the message says which, and how to get them.
        ValueError: for an unknown name.
    """
    published = None if os.path.exists(os.path.expanduser(name)) else SHORT_NAMES.get(name)
    if published is None:
        location = _check_name(name)
        return location, open_checkpoint(location, file=weight_name, trust_remote_code=trust_remote_code, **where)
    location, file = published.hub_id, weight_name or published.file
    try:
        return location, open_checkpoint(location, file=file, trust_remote_code=trust_remote_code, **where)
    except OSError as error:
        size = published.size.weight_bytes / 1e9
        raise OSError(
            f"{name!r} needs {' and '.join(published.files)} of {location} (about {size:.1f} GB), which cannot be had"
            f" now: run `hf download {location}{f' {file}' if file else ''}` where there is a network, and give the"
            f" folder that it prints in place of the name. ({error})"
        ) from error


def _check_name(name: str) -> str:
    if os.path.exists(os.path.expanduser(name)) or is_hub_id(name):
        return name
    if os.sep in name or name.startswith((".", "~")):
        return name  # a path: whoever opens it says that it is missing
    hint = did_you_mean(name.lower(), available_names())
    known = ", ".join(available_names())
    raise ValueError(f"`name_or_path` {name!r} is no local folder, Hub id or short name ({known}).{hint}")


def _family_of(checkpoint: Checkpoint, name: str) -> type[Denoiser]:
    for family in DENOISERS.names():
        if DENOISERS[family].recognises(checkpoint):
            return DENOISERS[family]
    if not checkpoint.config:
        read_json(checkpoint.config_file)  # says that it is missing
    known = f"{name!r} is a checkpoint of no known family ({', '.join(DENOISERS.names())})."
    if "model_type" in checkpoint.config:
        raise ValueError(known)
    raise ValueError(f"{known} {missing_model_type(checkpoint)}")


def load_options_known() -> set[str]:
    """The names of all options of [`load_denoiser`], including those of every family."""
    families = (DENOISERS[name]._from_checkpoint for name in DENOISERS.names())
    names = {name for function in (load_denoiser, *families) for name in inspect.signature(function).parameters}
    return names - {"name_or_path", "options", "checkpoint"}


def _check_options(family: type[Denoiser], options: dict[str, Any]) -> None:
    known = [*inspect.signature(family._from_checkpoint).parameters][1:]
    for option in options:
        if option not in known:
            raise TypeError(f"`load_denoiser` got an unknown option `{option}`; {family.__name__} has {known}.")
