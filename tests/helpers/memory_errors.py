"""Lack of memory, as torch, numpy, Python and the system tell of it."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch


def error_of(allocate: Callable[[], Any]) -> BaseException:
    """What is raised by a library that asks for more memory than there is."""
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate()
    return caught.value


ERRORS = {
    "CUDA": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    "CUDA, by its driver": lambda: RuntimeError("CUDA error: out of memory"),
    "CPU": lambda: error_of(lambda: torch.empty(2**62, dtype=torch.uint8)),
    "numpy": lambda: error_of(lambda: np.empty(2**62, dtype=np.uint8)),
    "Python": MemoryError,
    "system": lambda: OSError(12, os.strerror(12)),
}
