"""`lsd-train --env`: versions and hardware for a bug report."""

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from ..evaluation.protocol import hardware
from ..support.version import __version__
from .common import say


PACKAGES = (
    "torch", "diffusers", "transformers", "tokenizers", "huggingface_hub", "safetensors", "numpy",
    "accelerate", "matplotlib", "jinja2",
)  # fmt: skip


class PrintVersions(argparse.Action):
    """An argparse flag that prints versions and hardware, one a line, and stops."""

    def __init__(self, option_strings: list[str], dest: str, **options: Any):
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        say("\n".join(f"{name}: {value}" for name, value in environment().items()))
        parser.exit()


def environment() -> dict[str, str]:
    """Name -> version, or the hardware that was found."""
    found = {"lsd_sampler": __version__, "Python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    found["CUDA of torch"] = torch.version.cuda or "none"
    for i in range(torch.cuda.device_count()):
        found[f"cuda:{i}"] = hardware(torch.device("cuda", i))
    return {**found, "cpu": hardware(torch.device("cpu"))}
