"""Files of weights and configs: in parts, damaged, or missing."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.ddit_checkpoints import save_small_radd
from helpers.golden_files import fixture_path
from helpers.masked_lms import loaded
from helpers.tiny_language_models import MASKED_LMS
from safetensors.torch import load_file, save_file

from lsd_sampler.denoisers import load_denoiser


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_small_radd(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "surplus", "shape", "truncated"])
def test_weights_that_do_not_fit_are_named(folder: Path, damage: str) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    key = "blocks.1.norm2.bias"
    if damage == "missing":
        del tensors[key]
    elif damage == "surplus":
        key = "blocks.9.extra"
        tensors[key] = torch.zeros(1)
    else:
        tensors[key] = torch.zeros(7)
    save_file(tensors, file)
    if damage == "truncated":
        key = "damaged"
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"model.safetensors.*{key}"):
        load_denoiser(folder)


@torch.no_grad()
@pytest.mark.parametrize("fixture", ["radd", "sedd_absorb", "halton_maskgit"])
def test_shards(fixture: str, tmp_path: Path) -> None:
    """Several files and an index, as the Hub's tools write them."""
    whole = load_denoiser(fixture_path(fixture))
    whole.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    file_of = {name: f"model-0000{i % 3 + 1}-of-00003.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in {*file_of.values()}:
        save_file({name: x for name, x in tensors.items() if file_of[name] == file}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": file_of}))
    for source in (tmp_path, shutil.copytree(tmp_path, tmp_path / "inner")):
        shards = load_denoiser(source).state_dict()
        assert shards.keys() == whole.state_dict().keys()
        assert all(torch.equal(shards[name], x) for name, x in whole.state_dict().items())
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(OSError, match="model-00002-of-00003.safetensors"):
        load_denoiser(tmp_path)
    index.write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "model-00001-of-00003.safetensors")}))
    with pytest.raises(ValueError, match="model.safetensors.index.json lacks"):
        load_denoiser(tmp_path)


def test_missing_files_are_named(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="model.safetensors.*pickle"):
        load_denoiser(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json"):
        load_denoiser(folder)
    (folder / "config.json").unlink()
    with pytest.raises(OSError, match="config.json"):
        load_denoiser(folder)
    with pytest.raises(OSError, match="no folder"):
        load_denoiser(folder / "nothing")
    with pytest.raises(OSError, match="subfolder 'nothing'"):
        load_denoiser(folder, subfolder="nothing")


@pytest.mark.parametrize("shards", [1, 2])
def test_the_advice_for_pickles_works_for_tied_weights(tmp_path: Path, shards: int) -> None:
    """As `torch.save(model.state_dict())` wrote them: the decoder is the embedding."""
    MASKED_LMS["bert"](tmp_path)
    model, tokens = loaded(tmp_path), torch.tensor([[6, 4, 4]])
    expected, state = model(tokens), model.network.state_dict()
    tied = ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight")
    assert state[tied[0]].data_ptr() == state[tied[1]].data_ptr()
    (tmp_path / "model.safetensors").unlink()
    names = ["pytorch_model.bin"] if shards == 1 else ["pytorch_model-1-of-2.bin", "pytorch_model-2-of-2.bin"]
    for i, name in enumerate(names):
        torch.save({key: state[key] for key in [*state][i::shards]}, tmp_path / name)
    torch.save({"state": {}}, tmp_path / "optimizer.pt")
    with pytest.raises(FileNotFoundError, match="pickle") as error:
        load_denoiser(tmp_path)
    command = re.search(r'run: python -c "([^"]+)"', str(error.value))
    assert command
    ran = subprocess.run([sys.executable, "-c", command[1]], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert torch.equal(loaded(tmp_path)(tokens), expected)
