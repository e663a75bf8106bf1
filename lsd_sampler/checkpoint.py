"""The learned tensors of a sampler, and their file `scheduler_model.safetensors`. JSON and safetensors only, checked
on load.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from .hub import check_announced
from .lfs import check_no_pointer
from .schedules import StepErrorTable


TENSORS_NAME = "scheduler_model.safetensors"
# beside the config; or one folder deeper, where a pipeline is saved: see `save_pretrained`. Its name has a dot, as
# diffusers looks for a `variant` after the first dot of every name in a component's folder; older pipelines lack it
TENSORS_PLACES = (TENSORS_NAME, f"learned.tensors/{TENSORS_NAME}", f"learned/{TENSORS_NAME}")
FORMAT_VERSION = 1
MAX_BYTES = 2**25
MAX_HEADER_BYTES = 2**20
_KEY = re.compile(r"nfe_([1-9][0-9]{0,4})\.(timesteps|score_coefficients|log_score_coefficients)")
_STEP_ERROR_KEYS = ("step_error.table", "step_error.grid")


@dataclass(frozen=True)
class LearnedSteps:
    """The numbers of a sampler with M steps (= network calls).

    Args:
        timesteps (`torch.DoubleTensor` of shape `(M + 1,)`): `1 = t_0 > ... > t_M > 0`.
        score_coefficients (`torch.DoubleTensor` of shape `(M,)`): Phi, multiplies the score: scales how many tokens
            step k reveals.
        log_score_coefficients (`torch.DoubleTensor` of shape `(M,)`): beta, multiplies the log-score: an inverse
            temperature.
    """

    timesteps: torch.Tensor
    score_coefficients: torch.Tensor
    log_score_coefficients: torch.Tensor

    @classmethod
    def plain(cls, timesteps: torch.Tensor) -> "LearnedSteps":
        """All coefficients 1."""
        return cls(timesteps, torch.ones_like(timesteps[1:]), torch.ones_like(timesteps[1:]))

    def check(self, where: str) -> None:
        """Raises `ValueError`, naming `where` and the culprit, unless all numbers are usable."""
        M = self.timesteps.numel() - 1
        for name in ("timesteps", "score_coefficients", "log_score_coefficients"):
            tensor = getattr(self, name)
            expected = (M + 1,) if name == "timesteps" else (M,)
            if tuple(tensor.shape) != expected:
                raise ValueError(f"{where}.{name} must have shape {expected}, got {tuple(tensor.shape)}.")
            _check_float(tensor, f"{where}.{name}")
            if bool((tensor < 0).any()):
                raise ValueError(f"{where}.{name} must be >= 0.")
        if M < 1 or float(self.timesteps[0]) > 1 or float(self.timesteps[-1]) <= 0:
            raise ValueError(f"{where}.timesteps must lie in (0, 1] and hold at least two times.")
        # in float32, as the network sees them
        if not bool((self.timesteps.float().diff() < 0).all()):
            raise ValueError(f"{where}.timesteps must be strictly decreasing (in float32).")


@dataclass
class LearnedSampler:
    """All that was learned: numbers for some NFEs, and perhaps the table that gives them for any."""

    steps: dict[int, LearnedSteps] = field(default_factory=dict)
    step_error: StepErrorTable | None = None

    def __bool__(self) -> bool:
        return bool(self.steps) or self.step_error is not None

    def check(self, where: str) -> None:
        """Raises `ValueError` naming `where` and the key of the first unusable tensor."""
        for M, steps in self.steps.items():
            steps.check(f"{where}: nfe_{M}")
            if steps.timesteps.numel() != M + 1:
                got = steps.timesteps.numel()
                raise ValueError(f"{where}: nfe_{M}.timesteps must have {M + 1} entries, got {got}.")
        if self.step_error is not None:
            _check_step_error(self.step_error, where)


def _check_float(tensor: torch.Tensor, where: str) -> None:
    if not tensor.is_floating_point():
        raise ValueError(f"{where} must be floating point, got {tensor.dtype}.")
    # the extremes are NaN if anything is; no copy of the tensor is made
    if tensor.numel() and not all(math.isfinite(extreme) for extreme in tensor.detach().double().aminmax()):
        raise ValueError(f"{where} holds NaN or infinite values.")


def _check_step_error(step_error: StepErrorTable, where: str) -> None:
    table, grid = step_error.table, step_error.grid
    if table.ndim != 2 or grid.ndim != 1 or len(table) != len(grid) or table.numel() == 0:
        shapes = f"{tuple(table.shape)} and {tuple(grid.shape)}"
        raise ValueError(f"{where}: step_error.table and step_error.grid must be (G, L) and (G,), got {shapes}.")
    _check_float(table, f"{where}: step_error.table")
    if not math.isfinite(float(torch.linalg.vector_norm(table, ord=1, dtype=torch.float64))):
        raise ValueError(f"{where}: step_error.table holds values too large to be added up.")
    # compared, not subtracted: a difference may overflow
    if grid.dtype != torch.int64 or int(grid[0]) != 0 or not bool((grid[1:] > grid[:-1]).all()):
        raise ValueError(f"{where}: step_error.grid must be int64 and increase from 0.")
    if int(grid[-1]) >= table.shape[1]:
        raise ValueError(f"{where}: step_error.grid must stay below the sequence length {table.shape[1]}.")


def _to_tensors(learned: LearnedSampler) -> dict[str, torch.Tensor]:
    tensors = {}
    for M, steps in sorted(learned.steps.items()):
        for name in ("timesteps", "score_coefficients", "log_score_coefficients"):
            tensors[f"nfe_{M}.{name}"] = getattr(steps, name).double().cpu().clone()
    if learned.step_error is not None:
        tensors["step_error.table"] = learned.step_error.table.double().cpu().contiguous()
        tensors["step_error.grid"] = learned.step_error.grid.cpu().contiguous()
    return tensors


def _from_tensors(tensors: Mapping[str, torch.Tensor], where: str) -> LearnedSampler:
    found: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match:
            found.setdefault(int(match[1]), {})[match[2]] = tensor
        elif key not in _STEP_ERROR_KEYS:
            raise ValueError(f"{where} holds an unknown key {key!r}.")
    steps = {}
    for M, parts in sorted(found.items()):
        for name in ("timesteps", "score_coefficients", "log_score_coefficients"):
            if name not in parts:
                raise ValueError(f"{where} lacks the key 'nfe_{M}.{name}'.")
        steps[M] = LearnedSteps(**{name: _as_double(part, f"{where}: nfe_{M}.{name}") for name, part in parts.items()})
    step_error = None
    if any(key in tensors for key in _STEP_ERROR_KEYS):
        for key in _STEP_ERROR_KEYS:
            if key not in tensors:
                raise ValueError(f"{where} lacks the key {key!r}.")
        table = _as_double(tensors["step_error.table"], f"{where}: step_error.table")
        step_error = StepErrorTable(table, tensors["step_error.grid"])
    return LearnedSampler(steps, step_error)


def _as_double(tensor: torch.Tensor, where: str) -> torch.Tensor:
    _check_float(tensor, where)
    return tensor.double()


def dump_learned(learned: LearnedSampler, where: str, made_for: Mapping[str, Any] | None = None) -> bytes:
    """The safetensors file of a sampler; the same content always gives the same bytes.

    Args:
        learned ([`LearnedSampler`]): what.
        where (`str`): the file's name, for error messages.
        made_for (`dict`, *optional*): entries of the config with which alone the numbers make sense; kept as metadata.

    Raises:
        ValueError: if a number is unusable; the message names `where` and the key.
    """
    from . import __version__

    learned.check(where)
    metadata = {"format_version": str(FORMAT_VERSION), "library_version": __version__}
    metadata |= {key: _as_text(value) for key, value in (made_for or {}).items()}
    return _with_metadata(save(_to_tensors(learned)), metadata)


def _with_metadata(data: bytes, metadata: dict[str, str]) -> bytes:
    """The file with metadata, in alphabetical order: safetensors writes them in another one each time."""
    header, tensors = _header(data), data[8 + int.from_bytes(data[:8], "little") :]
    text = json.dumps({"__metadata__": dict(sorted(metadata.items())), **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + tensors


def _as_text(value: Any) -> str:
    """A config entry as metadata; numbers that are equal look alike (some JSON writers make 20 of 20.0)."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def read_at_most(path: Path, limit: int) -> bytes:
    """The content of a file.

    Raises:
        OSError: if it is missing or cannot be read.
        ValueError: if it is larger than `limit` bytes, or a Git LFS pointer; the message names it.
    """
    check_no_pointer(path)
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} is larger than any sampler's ({limit >> 10} KiB).")
    return data


def load_learned(
    path: str | os.PathLike, made_for: Mapping[str, Any] | None = None, sha256: str | None = None
) -> LearnedSampler:
    """Reads and checks the tensors.

    Args:
        path (`str` or `os.PathLike`): the file.
        made_for (`dict`, *optional*): entries of the config beside it; the file's metadata must agree, where it has
            them.
        sha256 (`str`, *optional*): what the file's SHA-256 must be.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not a safetensors file, or a tensor is missing, unknown, or unusable; or if it is not the
            file that belongs to the config. The message names file and key.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"The sampler's tensors are missing: no file {path}.")
    data = read_at_most(path, MAX_BYTES)
    check_announced(path, data)
    try:
        header = _header(data)
        tensors = load(data)
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is not a readable safetensors file (truncated or damaged?): {error}") from error
    metadata = header.get("__metadata__") or {}
    version = metadata.get("format_version", str(FORMAT_VERSION))
    if version not in map(str, range(1, FORMAT_VERSION + 1)):
        raise ValueError(
            f"{path}: `format_version` {version} is newer than this library reads ({FORMAT_VERSION}):"
            " upgrade lsd_sampler."
        )
    total = sum(tensor.numel() for tensor in tensors.values())
    if total * 8 > MAX_BYTES:  # small types would grow as float64
        raise ValueError(f"{path} holds {total} numbers, more than any sampler ({MAX_BYTES // 8}).")
    learned = _from_tensors(tensors, str(path))
    learned.check(str(path))
    if not learned:
        raise ValueError(f"{path} holds no learned tensors.")
    for key, value in (made_for or {}).items():
        if metadata.get(key, _as_text(value)) != _as_text(value):
            raise ValueError(
                f"{path} was saved with `{key}` {metadata[key]!r}, but the config beside it says {value!r}: the config"
                " was edited, or is another sampler's. Get both files again, or save the sampler anew."
            )
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(
            f"{path} is not the file that was saved with its config (`tensors_sha256`): it is damaged, or another"
            " sampler's. Get both files again (from the Hub: `force_download=True`), or save the sampler anew."
        )
    return learned


def _header(data: bytes) -> dict[str, Any]:
    """The header of a safetensors file, before any of it is trusted."""
    size = int.from_bytes(data[:8], "little")
    if not 2 <= size <= len(data) - 8:
        raise SafetensorError(f"a header of {size} bytes in a file of {len(data)}")
    if size > MAX_HEADER_BYTES:
        raise SafetensorError(f"a header of {size} bytes, where no sampler needs more than {MAX_HEADER_BYTES}")
    try:
        header = json.loads(data[8 : 8 + size])
    except ValueError as error:
        raise SafetensorError(f"its header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise SafetensorError("its header is not a JSON object")
    return header
