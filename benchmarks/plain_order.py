"""What the order `halton` visits, and learned times, with numpy alone: for the two scripts that check figures.

Not a script: `check_molecules.py` and `check_garments.py` use it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file


BITS = 24


def sobol(num: int, dimensions: int) -> np.ndarray:
    """The first points of Sobol's sequence in one or two dimensions, in Gray-code order. `(num, dimensions)`."""
    directions = np.ones((2, BITS), dtype=np.int64)
    for i in range(1, BITS):
        directions[1, i] = directions[1, i - 1] ^ (directions[1, i - 1] << 1)
    gray = np.arange(num) ^ (np.arange(num) >> 1)
    points = np.zeros((num, dimensions), dtype=np.int64)
    for axis in range(dimensions):
        for bit in range(BITS):
            points[:, axis] ^= np.where(gray >> bit & 1, directions[axis, bit] << (BITS - 1 - bit), 0)
    return points / 2**BITS


def visits(num: int, shape: tuple[int, ...], rng: Any) -> np.ndarray:
    """When each cell is visited, for `num` canvases whose points are shifted at random. `(num, cells)` ranks."""
    points, cells = sobol(64 * int(np.prod(shape)), len(shape)), int(np.prod(shape))
    ranks = np.empty((num, cells), dtype=np.int64)
    for row in ranks:
        moved = ((points + rng.random(len(shape))) % 1 * shape).astype(np.int64)
        visited, first = np.unique(np.ravel_multi_index(tuple(moved.T), shape), return_index=True)
        assert len(visited) == cells
        row[np.argsort(first)] = np.arange(cells)
    return ranks


def learned(folder: Path, calls: int) -> tuple[np.ndarray, np.ndarray]:
    """The share that is known after each call, by the learned times and `alpha = 1 - (1 - eps) t`, and what log
    probabilities are multiplied by in each call.
    """
    config = json.loads((folder / "scheduler_config.json").read_text())
    if (config["order"], config["solver"], config["noise_schedule"]) != ("halton", "tweedie", "log_linear"):
        raise SystemExit(f"{folder} is no sampler of `path_kl` in `halton` order, under log-linear noise.")
    tensors = load_file(folder / "scheduler_model.safetensors")
    known = 1 - (1 - config["noise_eps"]) * tensors[f"nfe_{calls}.timesteps"][1:]
    known[-1] = 1.0
    return known, tensors[f"nfe_{calls}.log_score_coefficients"]
