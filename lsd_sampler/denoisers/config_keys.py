"""Reading the authors' configs: keys by their full names, `"model.n_heads"`, and never a default for a missing one."""

from collections.abc import Collection, Mapping
from typing import Any

from ..sampling.noise import NoiseSchedule, make_noise_schedule


SEDD_NOISES = {"loglinear": "log_linear", "geometric": "geometric"}
MDLM_NOISES = {**SEDD_NOISES, "linear": "linear", "cosine": "cosine", "cosinesqr": "cosine_squared"}


def look_up(config: Mapping[str, Any], key: str) -> Any:
    """`config["model"]["n_heads"]` for `"model.n_heads"`; None where there is no such key."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def read_size(config: Mapping[str, Any], key: str) -> int:
    """A positive integer."""
    value = look_up(config, key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`config` must hold a positive integer '{key}', got {value!r}.")
    return value


def read_sizes(config: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, int]:
    """Sizes of a transformer by our names, `hidden_size`, `n_heads` and others; `keys` are the config's names.

    Raises:
        ValueError: if one is no positive integer, or the heads do not divide the hidden size into even widths.
    """
    sizes = {name: read_size(config, key) for name, key in keys.items()}
    if sizes["hidden_size"] % (2 * sizes["n_heads"]):
        raise ValueError(f"'{keys['hidden_size']}' in `config` must be a multiple of twice '{keys['n_heads']}'.")
    return sizes


def read_dropout(config: Mapping[str, Any], key: str) -> float:
    value = look_up(config, key)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 1:
        raise ValueError(f"'{key}' in `config` must be in [0, 1), got {value!r}.")
    return value


def read_flag(config: Mapping[str, Any], key: str) -> bool:
    value = look_up(config, key)
    if not isinstance(value, bool):
        raise ValueError(f"`config` must say true or false for '{key}', got {value!r}.")
    return value


def read_choice(config: Mapping[str, Any], key: str, choices: Collection[str]) -> str:
    value = look_up(config, key)
    if value not in list(choices):
        raise ValueError(f"'{key}' in `config` must be one of {sorted(choices)}, got {value!r}.")
    return value


def read_noise(config: Mapping[str, Any], key: str, names: Mapping[str, str]) -> NoiseSchedule:
    """The noise schedule that `{"type": ..., "sigma_min": ..., "sigma_max": ...}` stands for.

    Args:
        config (`dict`): a whole config.
        key (`str`): where it describes the noise.
        names (`dict`): our name for each type that the family has. The last two constants belong to `geometric` and
            `linear`; the others have an eps of 1e-3, which no config holds.
    """
    name = names[read_choice(config, f"{key}.type", names)]
    if name not in ("geometric", "linear"):
        return make_noise_schedule(name)
    sigmas = {bound: look_up(config, f"{key}.{bound}") for bound in ("sigma_min", "sigma_max")}
    for bound, value in sigmas.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise ValueError(f"`config` must hold a number '{key}.{bound}', got {value!r}.")
    return make_noise_schedule(name, **sigmas)
