"""Configs of transformers that do not say which model they are of."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.masked_lms import loaded
from helpers.tiny_language_models import MASKED_LMS
from safetensors.torch import save_file

from lsd_sampler.denoisers import load_denoiser


def edit(folder: Path, remove: str | None = None, **changes: Any) -> None:
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    config.pop(remove, None)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("says", ["architectures", "names of tensors", "nothing"])
def test_a_config_without_a_model_type_is_told_the_line(tmp_path: Path, says: str) -> None:
    MASKED_LMS["bert"](tmp_path)
    edit(tmp_path, "model_type")
    if says != "architectures":
        edit(tmp_path, "architectures")
    if says == "nothing":
        save_file({"x.y": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="lacks its `model_type`") as error:
        load_denoiser(tmp_path)
    if says != "nothing":
        line = re.search(r'add the line `("model_type": "[^"]+")`', str(error.value))
        assert line
        edit(tmp_path, **json.loads(f"{{{line[1]}}}"))
        loaded(tmp_path)
