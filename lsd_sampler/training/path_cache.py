"""Teacher paths on disk: integers only, made once, for every method and every number of calls."""

import hashlib
import inspect
import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..atomic import remove_leftovers, write_atomically
from .progress import describe


DAY = 86400.0
FORMAT = 1  # to be raised when the same teacher would make other paths


def default_cache_dir() -> Path:
    """`lsd_sampler` in the user's cache folder (`XDG_CACHE_HOME`, or `~/.cache`)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lsd_sampler"


class PathCache:
    """Sets of integer tensors, one file for each batch of a teacher's paths.

    What a file is about is in its name, as a hash: the weights of the pipeline's networks, the arguments of its call,
    the teacher's scheduler, steps, seed and sequences. So nothing can be stale, and nothing need ever be cleared but
    for room. A file that cannot be read is as good as none.

    Args:
        folder (`Path`): where they lie.
        pipeline (`DiffusionPipeline`): the teacher's.
        call (`dict`): the arguments of its call.
        known (`str`, *optional*): the pipeline's [`fingerprint`], where it was taken already.
    """

    def __init__(self, folder: Path, pipeline: DiffusionPipeline, call: dict[str, Any], known: str | None = None):
        self.folder, self._pipeline, self._call, self._known = folder, pipeline, call, known
        remove_leftovers(folder, older_than=DAY)

    @cached_property
    def _of(self) -> dict[str, Any]:
        # all weights are read for this: not before paths are asked for, and once
        return {"format": FORMAT, "pipeline": self._known or fingerprint(self._pipeline), "call": self._call}

    def load(self, teacher: dict[str, Any]) -> dict[str, torch.Tensor] | None:
        """The tensors of a teacher (its scheduler's config, steps, seed, sequences), or None."""
        path = self._path(teacher)
        try:
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
        except (OSError, SafetensorError):
            return None

    def save(self, teacher: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Keeps them; a cache that cannot be written to is done without."""
        try:
            write_atomically(self._path(teacher), save({k: t.cpu().contiguous() for k, t in tensors.items()}))
        except OSError:
            return

    def _path(self, teacher: dict[str, Any]) -> Path:
        identity = json.dumps({**self._of, "teacher": teacher}, sort_keys=True, default=describe)
        return self.folder / f"teacher-{hashlib.sha256(identity.encode()).hexdigest()[:32]}.safetensors"


def fingerprint(pipeline: DiffusionPipeline) -> str:
    """A hash of all that decides a pipeline's predictions: its class, the classes, configs and weights of its
    networks, the code of networks of one's own.
    """
    digest = hashlib.sha256(type(pipeline).__qualname__.encode())
    for name, part in sorted(pipeline.components.items()):
        if not isinstance(part, torch.nn.Module):
            continue
        digest.update(f"{name} {type(part).__qualname__} {_code(part)}".encode())
        digest.update(json.dumps(_config(part), sort_keys=True, default=describe).encode())
        for key, tensor in [*part.named_parameters(), *part.named_buffers()]:
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).cpu().numpy())
    return digest.hexdigest()


def _config(part: torch.nn.Module) -> dict[str, Any]:
    """Of diffusers' models a mapping, of transformers' an object."""
    config: Any = getattr(part, "config", None) or {}
    config = config.to_dict() if hasattr(config, "to_dict") else config
    return {key: value for key, value in dict(config).items() if key[0] != "_"}


def _code(part: torch.nn.Module) -> str:
    """The source of a network's class, where it can be had."""
    try:
        return hashlib.sha256(inspect.getsource(type(part)).encode()).hexdigest()
    except (OSError, TypeError):
        return ""
