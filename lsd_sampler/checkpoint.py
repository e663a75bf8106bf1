"""The learned tensors of a sampler, and their file `scheduler_model.safetensors`. JSON and safetensors only, checked
on load.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from .atomic import write_atomically
from .schedules import StepErrorTable


TENSORS_NAME = "scheduler_model.safetensors"
FORMAT_VERSION = 1
MAX_BYTES = 2**28
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
    if not bool(torch.isfinite(tensor.double()).all()):
        raise ValueError(f"{where} holds NaN or infinite values.")


def _check_step_error(step_error: StepErrorTable, where: str) -> None:
    table, grid = step_error.table, step_error.grid
    if table.ndim != 2 or grid.ndim != 1 or len(table) != len(grid) or table.numel() == 0:
        shapes = f"{tuple(table.shape)} and {tuple(grid.shape)}"
        raise ValueError(f"{where}: step_error.table and step_error.grid must be (G, L) and (G,), got {shapes}.")
    _check_float(table, f"{where}: step_error.table")
    if grid.dtype != torch.int64 or int(grid[0]) != 0 or bool((grid.diff() <= 0).any()):
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


def save_learned(learned: LearnedSampler, path: Path) -> None:
    """Writes the tensors to a safetensors file, atomically, after checking them."""
    learned.check(str(path))
    write_atomically(path, save(_to_tensors(learned), metadata={"format_version": str(FORMAT_VERSION)}))


def load_learned(path: str | os.PathLike) -> LearnedSampler:
    """Reads and checks the tensors.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not a safetensors file, or a tensor is missing, unknown, or unusable; the message names
            file and key.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"The sampler's tensors are missing: no file {path}.")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is larger than any sampler ({MAX_BYTES >> 20} MiB).")
    try:
        tensors = load_file(path)
        with safe_open(path, framework="pt") as file:
            version = (file.metadata() or {}).get("format_version", str(FORMAT_VERSION))
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a readable safetensors file (truncated or damaged?): {error}") from error
    if not version.isdecimal() or int(version) > FORMAT_VERSION:
        raise ValueError(
            f"{path}: `format_version` {version} is newer than this library reads ({FORMAT_VERSION}):"
            " upgrade lsd_sampler."
        )
    learned = _from_tensors(tensors, str(path))
    learned.check(str(path))
    if not learned:
        raise ValueError(f"{path} holds no learned tensors.")
    return learned
