"""Files of tokenizers: damaged, or for a package that is not installed."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.masked_lms import loaded
from helpers.tiny_language_models import BERT_TOKENS

from lsd_sampler import MaskedDiffusionPipeline
from lsd_sampler.cli import evaluate, sample, train
from lsd_sampler.denoisers import RADDDenoiser, load_denoiser


RADD: dict[str, Any] = {
    "tokens": 5,
    "noise": {"type": "loglinear"},
    "model": {"type": "ddit_wot", "hidden_size": 8, "n_heads": 2, "n_blocks": 1, "length": 6, "dropout": 0.1},
}


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456\n"


@pytest.mark.parametrize("damage", ["truncated", "pointer", "list", "nonsense", "entry"])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_tokenizer_is_named_by_every_command(
    folder: Path, name: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / name
    whole = file.read_bytes()
    damaged = {
        "truncated": whole[: len(whole) // 2], "pointer": POINTER, "list": b"[]", "nonsense": b"\x00\xff",
        "entry": json.dumps(json.loads(whole) | {"model": 7, "added_tokens_decoder": 7}).encode(),
    }  # fmt: skip
    file.write_bytes(damaged[damage])
    word = "Git LFS pointer" if damage == "pointer" else ""
    with pytest.raises(ValueError, match=f"{name}.*{word}"):
        load_denoiser(folder)
    RADDDenoiser(RADD).save_pretrained(folder / "radd")
    if name == "tokenizer.json":  # the only one that families of this library read
        (folder / "radd" / name).write_bytes(damaged[damage])
        with pytest.raises(ValueError, match=f"{name}.*{word}"):
            load_denoiser(folder / "radd")
    for main in (sample.main, train.main, evaluate.main):
        assert main(["--model", str(folder), "--nfe", "2"]) == 1
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert str(file) in last and word in last


def test_a_saved_pipeline_with_a_damaged_tokenizer(folder: Path, tmp_path: Path) -> None:
    MaskedDiffusionPipeline.from_pretrained(folder).save_pretrained(tmp_path / "pipe")
    (tmp_path / "pipe" / "tokenizer" / "tokenizer.json").write_bytes(POINTER)
    with pytest.raises(ValueError, match="tokenizer.json is a Git LFS pointer"):
        MaskedDiffusionPipeline.from_pretrained(tmp_path / "pipe")


def test_without_a_package_it_goes_on_or_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a tokenizer's package there is no tokenizer; without that of an attention, it can be left out."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "BertJapaneseTokenizer",
                                                              "word_tokenizer_type": "mecab"}))  # fmt: skip
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(BERT_TOKENS))
    monkeypatch.setitem(sys.modules, "fugashi", None)
    model = loaded(folder, mask_token_id=4)
    assert model.tokenizer is None and "fugashi" in caplog.text and "going on without it" in caplog.text
    with pytest.raises(ValueError, match="^[^\n]*`attn_implementation` 'flash_attention_2' needs a package[^\n]*$"):
        load_denoiser(folder, mask_token_id=4, attn_implementation="flash_attention_2")
