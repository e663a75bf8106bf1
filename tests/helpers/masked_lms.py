"""Folders of masked language models: loaded, and changed."""

import json
from pathlib import Path
from typing import Any

from lsd_sampler.denoisers import MaskedLMDenoiser, load_denoiser


def loaded(folder: Path, **options: Any) -> MaskedLMDenoiser:
    """The denoiser of a folder."""
    model = load_denoiser(folder, **options)
    assert isinstance(model, MaskedLMDenoiser)
    return model


def edit(folder: Path, **changes: Any) -> None:
    """Changes entries of a folder's `config.json`."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
