"""The file `scheduler_model.safetensors` of a learned sampler. JSON and safetensors only, checked on load."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ..sampling.dependence import LAYOUTS, Dependence
from ..sampling.learned_numbers import LearnedSampler, LearnedSteps, StepErrorTable
from ..sampling.position_choice import BUDGETS, PositionChoice
from ..support.hub import check_announced
from ..support.lfs import check_no_pointer
from ..support.validation import check_float
from ..support.version import __version__


TENSORS_NAME = "scheduler_model.safetensors"
# beside the config; or one folder deeper, where a pipeline is saved: see `save_pretrained`. Its name has a dot, as
# diffusers looks for a `variant` after the first dot of every name in a component's folder; older pipelines lack it
TENSORS_PLACES = (TENSORS_NAME, f"learned.tensors/{TENSORS_NAME}", f"learned/{TENSORS_NAME}")
FORMAT_VERSION = 2
"""The newest format: 2 has the numbers of the order `adaptive`. Other samplers are written in format 1."""
MAX_BYTES = 2**25
MAX_HEADER_BYTES = 2**20
_EVERY_NFE = ("timesteps", "score_coefficients", "log_score_coefficients")
_CHOICE = ("choice_weights", "free_below", *BUDGETS)
_KEY = re.compile(rf"nfe_([1-9][0-9]{{0,4}})\.({'|'.join((*_EVERY_NFE, *_CHOICE))})")
_KAPPA_KEYS = tuple(f"kappa.{layout}" for layout in LAYOUTS)
_STEP_ERROR_KEYS = ("step_error.table", "step_error.grid")


def _to_tensors(learned: LearnedSampler) -> dict[str, torch.Tensor]:
    tensors = {}
    for M, steps in sorted(learned.steps.items()):
        for name in _EVERY_NFE:
            tensors[f"nfe_{M}.{name}"] = getattr(steps, name)
        if steps.choice is not None:
            choice = steps.choice
            parts = {"choice_weights": choice.weights, "free_below": choice.free_below, choice.budget: choice.shares}
            tensors |= {f"nfe_{M}.{name}": part for name, part in parts.items()}
    if learned.dependence is not None:
        tensors[f"kappa.{learned.dependence.layout}"] = learned.dependence.kappa
    tensors = {key: tensor.double().cpu().clone().contiguous() for key, tensor in tensors.items()}
    if learned.step_error is not None:
        tensors["step_error.table"] = learned.step_error.table.double().cpu().contiguous()
        tensors["step_error.grid"] = learned.step_error.grid.cpu().contiguous()
    return tensors


def _from_tensors(tensors: Mapping[str, torch.Tensor], where: str) -> LearnedSampler:
    found: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match:
            found.setdefault(int(match[1]), {})[match[2]] = _as_double(tensor, f"{where}: {key}")
        elif key not in (*_STEP_ERROR_KEYS, *_KAPPA_KEYS):
            raise ValueError(f"{where} holds an unknown key {key!r}.")
    steps = {M: _steps(M, parts, where) for M, parts in sorted(found.items())}
    return LearnedSampler(steps, _step_error(tensors, where), _dependence(tensors, where))


def _steps(M: int, parts: dict[str, torch.Tensor], where: str) -> LearnedSteps:
    wanted = [*_EVERY_NFE]
    budgets = [name for name in BUDGETS if name in parts]
    if any(name in parts for name in _CHOICE):
        wanted += ["choice_weights", "free_below", *(budgets or [BUDGETS[0]])]
    if len(budgets) > 1:
        raise ValueError(f"{where}: nfe_{M} holds both {' and '.join(budgets)}: one of them decides.")
    for name in wanted:
        if name not in parts:
            raise ValueError(f"{where} lacks the key 'nfe_{M}.{name}'.")
    choice = None
    if budgets:
        choice = PositionChoice(parts["choice_weights"], parts["free_below"], parts[budgets[0]], budgets[0])
    timesteps, score_coefficients, log_score_coefficients = (parts[name] for name in _EVERY_NFE)
    return LearnedSteps(timesteps, score_coefficients, log_score_coefficients, choice)


def _step_error(tensors: Mapping[str, torch.Tensor], where: str) -> StepErrorTable | None:
    if not any(key in tensors for key in _STEP_ERROR_KEYS):
        return None
    for key in _STEP_ERROR_KEYS:
        if key not in tensors:
            raise ValueError(f"{where} lacks the key {key!r}.")
    table = _as_double(tensors["step_error.table"], f"{where}: step_error.table")
    return StepErrorTable(table, tensors["step_error.grid"])


def _dependence(tensors: Mapping[str, torch.Tensor], where: str) -> Dependence | None:
    keys = [key for key in _KAPPA_KEYS if key in tensors]
    if not keys:
        return None
    if len(keys) > 1:
        raise ValueError(f"{where} holds both {' and '.join(keys)}: one of them decides.")
    return Dependence(_as_double(tensors[keys[0]], f"{where}: {keys[0]}"), keys[0].partition(".")[2])


def _as_double(tensor: torch.Tensor, where: str) -> torch.Tensor:
    check_float(tensor, where)
    return tensor.double()


def format_version(learned: LearnedSampler) -> int:
    """The oldest format that holds what was learned."""
    return FORMAT_VERSION if learned.chooses else 1


def dump_learned(learned: LearnedSampler, where: str, made_for: Mapping[str, Any] | None = None) -> bytes:
    """The safetensors file of a sampler; the same content always gives the same bytes.

    Args:
        learned ([`LearnedSampler`]): the sampler.
        where (`str`): the file's name, for error messages.
        made_for (`dict`, *optional*): entries of the config that the numbers were made for; kept as metadata.

    Raises:
        ValueError: if a number is unusable, or the file would be larger than one that is read; the message names
            `where`, and the key.
    """
    learned.check(where)
    metadata = {"format_version": str(format_version(learned)), "library_version": __version__}
    metadata |= {key: _as_text(value) for key, value in (made_for or {}).items()}
    data = _with_metadata(save(_to_tensors(learned)), metadata)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{where} would be larger than any sampler's ({MAX_BYTES >> 10} KiB): learn fewer numbers.")
    return data


def _with_metadata(data: bytes, metadata: dict[str, str]) -> bytes:
    """The file with metadata in alphabetical order, because safetensors writes them in another order each time."""
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
        made_for (`dict`, *optional*): entries of the config beside it; the file's metadata must agree with them, if it
            has any.
        sha256 (`str`, *optional*): the SHA-256 that the file must have.

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
    if format_version(learned) > int(version):
        raise ValueError(f"{path} says `format_version` {version}, which has no `choice_weights`: it was edited.")
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
