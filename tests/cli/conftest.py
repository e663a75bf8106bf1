"""Fixtures of several test files on the commands."""

from pathlib import Path

import pytest
import torch
from helpers.commands import TINY
from helpers.ddit_checkpoints import RADD
from helpers.evaluation_commands import LETTERS, letters
from helpers.evaluation_fakes import tiny_gpt2
from helpers.tiny_language_models import MASKED_LMS

from lsd_sampler.cli import train
from lsd_sampler.denoisers import RADDDenoiser


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


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of seven letters, a judge of the same, and a text."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    RADDDenoiser(RADD | {"tokens": len(LETTERS)}).save_pretrained(root / "model")
    tiny_gpt2(vocab_size=len(LETTERS), context=8).save_pretrained(root / "judge")
    for name in ("model", "judge"):
        letters().save(str(root / name / "tokenizer.json"))
    ids = torch.randint(len(LETTERS), (8 * 100,), generator=torch.Generator().manual_seed(0))
    (root / "text.txt").write_text("".join(LETTERS[i] for i in ids))
    return {"model": root / "model", "judge": root / "judge", "text": root / "text.txt"}
