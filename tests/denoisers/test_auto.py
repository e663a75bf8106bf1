"""`load_denoiser`: folders, names, and which family a folder is of."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.ddit_checkpoints import SMALL_RADD, save_small_radd

from lsd_sampler.denoisers import DENOISERS, SHORT_NAMES, RADDDenoiser, available_names, load_denoiser
from lsd_sampler.denoisers.files import Checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_small_radd(tmp_path)


def test_subfolder(folder: Path) -> None:
    shutil.copytree(folder, folder / "inner")
    assert load_denoiser(folder, subfolder="inner").vocab_size == 5


def test_folders_are_recognised_by_content(folder: Path) -> None:
    for name in DENOISERS.names():
        assert DENOISERS[name].recognises(Checkpoint(folder)) == (DENOISERS[name] is RADDDenoiser)
    descended = {**SMALL_RADD, "model": {"n_blocks": 2}, "graph": {"type": "absorb"}}
    (folder / "config.json").write_text(json.dumps(descended))
    assert not RADDDenoiser.recognises(Checkpoint(folder))
    (folder / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(ValueError, match="no known family"):
        load_denoiser(folder)


def test_names() -> None:
    with pytest.raises(ValueError, match="'radd-medium'"):
        load_denoiser("radd-mediun")
    with pytest.raises(ValueError, match="no local folder"):
        load_denoiser("qqqqqqqq")
    for name, (family, *_) in SHORT_NAMES.items():
        if family in DENOISERS.names():
            assert name in available_names()
        else:
            with pytest.raises(ValueError, match="not supported yet.*countdown, .*radd"):
                load_denoiser(name)
    with pytest.raises(ValueError, match="taken"):
        DENOISERS.register("radd", RADDDenoiser)
    with pytest.raises(ValueError, match="`dtype`"):
        load_denoiser("countdown", dtype="float99")
