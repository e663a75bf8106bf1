"""A model family of one's own is one class and one registration: the commands take it from its files to the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from lsd_sampler import Denoiser, load_denoiser
from lsd_sampler.cli import evaluate, sample, train
from lsd_sampler.denoisers import DENOISERS
from lsd_sampler.denoisers.base import build_model
from lsd_sampler.denoisers.files import read_tensors


class UnigramFamily(Denoiser):
    """The same law of tokens everywhere."""

    def __init__(self, config: Mapping[str, Any]):
        super().__init__()
        self.config = dict(config)
        self.vocab_size = self.mask_token_id = config["unigram_vocab_size"]
        self.length = config["length"]
        self.logits = torch.nn.Parameter(torch.linspace(0, 2, self.vocab_size))

    def forward(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
        return self.logits.expand(*tokens.shape, -1)

    @classmethod
    def recognises(cls, checkpoint: Any) -> bool:
        return "unigram_vocab_size" in checkpoint.config

    @classmethod
    def _from_checkpoint(cls, checkpoint: Any, variant: str | None = None) -> "UnigramFamily":
        file = checkpoint.weights_file(variant)
        return build_model(lambda: cls(checkpoint.config), checkpoint.config_file, read_tensors(file), file)

    def _config(self) -> dict[str, Any]:
        return self.config


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of such a model, while the family is registered."""
    monkeypatch.setattr(DENOISERS, "_parts", {name: DENOISERS[name] for name in DENOISERS.names()})
    DENOISERS.register("unigram", UnigramFamily)
    UnigramFamily({"unigram_vocab_size": 5, "length": 12}).save_pretrained(tmp_path / "unigram")
    return tmp_path / "unigram"


def test_it_gets_from_its_files_to_card_table_and_page(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, sampler, report = ["--model", str(folder)], tmp_path / "sampler", tmp_path / "report"
    assert isinstance(load_denoiser(folder), UnigramFamily)
    assert train.main([*model, "--nfe", "2", "4", "--num-sequences", "4", "--output-dir", str(sampler)]) == 0
    assert "   4 calls" in capsys.readouterr().out
    card = (sampler / "README.md").read_text()
    assert f"MaskedDiffusionPipeline.from_pretrained({str(folder)!r})" in card and "| 4 |" in card
    assert sample.main([*model, "--sampler", str(sampler), "--nfe", "4", "--num-samples", "2"]) == 0
    assert len(capsys.readouterr().out.split()) == 2 * 12
    options = ["--nfe", "2", "4", "--num-samples", "16", "--temperatures", "1", "--output-dir", str(report)]
    assert evaluate.main([*model, "--sampler", str(sampler), *options]) == 0
    table, page = (report / "table.txt").read_text(), (report / "report.html").read_text()
    assert "JS 1+2" in table and "sampler " in table and "JS 1+2" in page
