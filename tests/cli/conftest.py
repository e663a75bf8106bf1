"""Fixtures of several test files on the commands."""

from pathlib import Path

import pytest
import torch
from helpers.commands import TINY
from helpers.tiny_language_models import MASKED_LMS

from lsd_sampler.cli import train


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What `lsd-train` writes, for each method."""
    root = tmp_path_factory.mktemp("samplers")
    for method in ("path_kl", "lsd"):
        assert train.main([*TINY, "--method", method, "--output-dir", str(root / method)]) == 0
    return {method: root / method for method in ("path_kl", "lsd")}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small BERT."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bert")
    MASKED_LMS["bert"](folder)
    return folder
