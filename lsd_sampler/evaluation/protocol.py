"""How numbers were made: hardware and versions. There is no date, so that the same run gives the same report."""

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


PACKAGES = ("lsd_sampler", "torch", "diffusers", "transformers", "tokenizers", "numpy")


def versions() -> str:
    """Python, and the packages that numbers depend on."""
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:  # run from a checkout
            continue
    return ", ".join(found)


def hardware(device: torch.device) -> str:
    """What the networks ran on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    file = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*:\s*(.+)", file.read_text() if file.exists() else "")
    return f"{[*models, platform.machine()][0]}, {torch.get_num_threads()} threads"
