"""Teacher paths on disk: integers only, made once, for every method and every number of calls."""

import hashlib
import json
import logging
import os
import secrets
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..support.atomic import remove_leftovers, write_atomically
from ..support.identity import Undescribable, describe, identity, in_library, public, sha256, tensor_bytes
from ..support.version import __version__


logger = logging.getLogger(__name__)

DAY = 86400.0
_NEVER_AGAIN = "never-again-"
FORMAT = 1  # to be raised when the same teacher would make other paths


def default_cache_dir() -> Path:
    """`lsd_sampler` in the user's cache folder (`XDG_CACHE_HOME`, or `~/.cache`)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lsd_sampler"


class PathCache:
    """Sets of integer tensors, one file for each batch of a teacher's paths.

    The name of a file is a hash of everything that its content depends on: what decides the pipeline's predictions
    (see [`fingerprint`]), the arguments of its call, and the teacher's scheduler, steps, seed and sequences. So no
    file can be stale, and the folder need only be cleared to make room. A file that cannot be read is ignored. If
    something cannot be described (a lambda among the arguments), nothing is read or kept, and a warning says why.

    Args:
        folder (`Path`): where the files lie.
        pipeline (`DiffusionPipeline`): the teacher's.
        call (`dict`): the arguments of its call.
        known (`str`, *optional*): the pipeline's [`fingerprint`], where it was taken already.
    """

    def __init__(self, folder: Path, pipeline: DiffusionPipeline, call: dict[str, Any], known: str | None = None):
        self.folder, self._pipeline, self._call, self._known = folder, pipeline, call, known
        remove_leftovers(folder, older_than=DAY)

    @cached_property
    def _of(self) -> dict[str, Any] | None:
        # this reads all weights, so it is done only once, when paths are first asked for
        if (self._known or "").startswith(_NEVER_AGAIN):
            return None
        try:
            known = self._known or _fingerprint(self._pipeline)
            return {"format": FORMAT, "call": describe(self._call), "pipeline": known}
        except Undescribable as error:
            logger.warning("Teacher paths are not cached: there is no telling %s from another.", error)
            return None

    def load(self, teacher: dict[str, Any]) -> dict[str, torch.Tensor] | None:
        """The tensors of a teacher (its scheduler's config, steps, seed, sequences), or None."""
        path = self._path(teacher)
        if path is None:
            return None
        try:
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
        except (OSError, SafetensorError):
            return None

    def save(self, teacher: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Keeps the tensors. If the cache cannot be written to, the run goes on without it."""
        path = self._path(teacher)
        if path is None:
            return
        try:
            write_atomically(path, save({k: t.cpu().contiguous() for k, t in tensors.items()}))
        except OSError:
            return

    def _path(self, teacher: dict[str, Any]) -> Path | None:
        if self._of is None:
            return None
        return self.folder / f"teacher-{identity({**self._of, 'teacher': teacher})[:32]}.safetensors"


def fingerprint(pipeline: DiffusionPipeline) -> str:
    """A hash of all that decides a pipeline's predictions, except for its scheduler and the arguments of its call: the
    classes, configs, options and weights of its networks, the code of those that are not a library's, its tokenizer,
    and the versions of the libraries. Hooks are not seen.

    If something cannot be described, the hash never recurs, and a warning says what it is.
    """
    try:
        return _fingerprint(pipeline)
    except Undescribable as error:
        logger.warning("What other runs kept cannot be used: there is no telling %s from another.", error)
        return _NEVER_AGAIN + secrets.token_hex(32)


def _fingerprint(pipeline: DiffusionPipeline) -> str:
    parts = {name: part for name, part in pipeline.components.items() if name != "scheduler"}
    own = {name: value for name, value in public(pipeline.config).items() if name not in pipeline.components}
    # what a pipeline remembers of its own parts follows from them
    options = _options("the pipeline", pipeline, leave_out={*pipeline.components, "_without_token", "_interrupt"})
    digest = hashlib.sha256(identity([_versions(), type(pipeline), own, options]).encode())
    for name, part in sorted(parts.items()):
        if isinstance(part, torch.nn.Module):
            _add_network(digest, name, part)
        else:
            digest.update(identity([name, _saved(part) if hasattr(part, "save_pretrained") else part]).encode())
    return digest.hexdigest()


def _versions() -> list[str]:
    return [__version__, torch.__version__, transformers.__version__, diffusers.__version__]


def _add_network(digest: Any, name: str, network: torch.nn.Module) -> None:
    """Adds what a network is made of, and its weights."""
    configs: dict[int, Any] = {}
    for path, module in network.named_modules(prefix=name):
        described = [path, type(module), _options(f"`{path}`", module, leave_out=_BOOKKEEPING)]
        config = getattr(module, "config", None)
        if id(config) not in configs:  # transformers' modules share one
            configs[id(config)] = config
            described.append(_config(config))
        digest.update(identity(described).encode())
    for key, tensor in [*network.named_parameters(), *network.named_buffers()]:
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))


_BOOKKEEPING = {
    *vars(torch.nn.Module()), "config", "name_or_path", "commit_hash", "_num_columns", "_tokenizer_on_hub",
    "max_seq_len_cached",
}  # fmt: skip
"""Attributes of modules that do not affect their predictions, or that are described elsewhere."""


def _options(name: str, thing: Any, leave_out: Any) -> dict[str, Any]:
    """The attributes that may decide what an object does. For a library's class, these are numbers and texts: its
    config says the rest. For any other class, these are all but private ones that are neither numbers nor texts.
    """
    options = {}
    for key, value in vars(thing).items():
        if key in leave_out or (key[0] == "_" and (in_library(type(thing)) or not _is_simple(value))):
            continue
        if _is_simple(value):
            options[key] = value
        elif not in_library(type(thing)):
            try:
                options[key] = describe(value)
            except Undescribable as error:
                raise Undescribable(f"`{key}` of {name} ({error})") from error
    return options


def _is_simple(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_simple, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _config(config: Any) -> Any:
    """A config to describe: diffusers' models have a mapping, transformers' an object."""
    return public(config) if isinstance(config, Mapping) else config


def _saved(part: Any) -> list[Any]:
    """What a tokenizer or a similar part is made from."""
    backend = getattr(part, "backend_tokenizer", None)
    if backend is not None:
        made = json.loads(backend.to_str())
        # left behind by the latest call
        made = {key: value for key, value in made.items() if key not in ("padding", "truncation")}
        names = ("padding_side", "truncation_side", "model_max_length", "special_tokens_map", "chat_template")
        return [type(part), made, [getattr(part, name, None) for name in names]]
    with tempfile.TemporaryDirectory() as folder:
        part.save_pretrained(folder)
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return [type(part), *([path.name, sha256(path.read_bytes())] for path in files)]
