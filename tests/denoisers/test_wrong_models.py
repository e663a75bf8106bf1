"""Folders of masked language models that would be taken for another: read rightly, or refused by name."""

import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_language_models import BERT_TOKENS, MASKED_LMS, SIZES, WORDS, word_tokenizer
from safetensors.torch import load_file, save_file
from transformers import AlbertConfig, AlbertForMaskedLM, BertConfig, BertForMaskedLM

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.denoisers import MaskedLMDenoiser, load_denoiser


SPECIAL = ["[PAD]", *(f"[unused{i}]" for i in range(1, 6)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MASK = SPECIAL.index("[MASK]")


def save_albert(folder: Path, words: list[str] = WORDS, rows: int | None = None) -> list[str]:
    """With `vocab.txt`, which ALBERT's own tokenizer does not read; the tokens."""
    tokens = [*SPECIAL, *words]
    sizes = {**SIZES, "embedding_size": 8, "max_position_embeddings": 14, "vocab_size": rows or len(tokens)}
    ids = {"pad_token_id": 0, "bos_token_id": 7, "eos_token_id": 8}
    AlbertForMaskedLM(AlbertConfig(**sizes, **ids)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    return tokens


def loaded(folder: Path, **options: Any) -> MaskedLMDenoiser:
    model = load_denoiser(folder, **options)
    assert isinstance(model, MaskedLMDenoiser)
    return model


def edit(folder: Path, remove: str | None = None, **changes: Any) -> None:
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    config.pop(remove, None)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("config", [None, {}, {"tokenizer_class": "AlbertTokenizer"}, {"tokenizer_class": "Nothing"}])
def test_the_vocabulary_file_is_the_vocabulary(
    tmp_path: Path, config: dict[str, Any] | None, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = save_albert(tmp_path)
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    model = loaded(tmp_path)
    assert model.tokenizer is not None
    assert model.tokenizer.convert_ids_to_tokens(range(len(tokens))) == tokens
    assert (model.mask_token_id, model._options()["frame"]) == (MASK, [[7], [8]])
    assert "vocab.txt" in caplog.text
    pipe = MaskedDiffusionPipeline(model, LSDScheduler(**model.scheduler_config()), model.tokenizer)
    pipe.set_progress_bar_config(disable=True)
    output = pipe(prefix="the cat", length=6, num_inference_steps=3)
    assert output.sequences[0, :2].tolist() == [tokens.index("the"), tokens.index("cat")]
    assert "[UNK]" not in output.texts[0]


@pytest.mark.parametrize(("words", "kept"), [(["The", "Cat"], True), (["the", "cat"], False)])
def test_case_is_that_of_the_vocabulary(tmp_path: Path, words: list[str], kept: bool) -> None:
    tokens = save_albert(tmp_path, words)
    tokenizer: Any = loaded(tmp_path).tokenizer
    expected = words if kept else ["the", "cat"]
    assert tokenizer("The Cat", add_special_tokens=False).input_ids == [tokens.index(word) for word in expected]


def test_a_tokenizer_that_reads_the_same_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in MASKED_LMS:
        MASKED_LMS[name](tmp_path / name)
        loaded(tmp_path / name)
    assert "vocab.txt" not in caplog.text


@pytest.mark.parametrize("tokens", [BERT_TOKENS[:5], BERT_TOKENS])
def test_a_tokenizer_that_is_much_smaller_is_refused(tmp_path: Path, tokens: list[str]) -> None:
    """Nothing but special tokens; or a fraction of the rows that no padding explains."""
    rows = 591 if tokens == BERT_TOKENS else 40
    BertForMaskedLM(BertConfig(vocab_size=rows, max_position_embeddings=14, **SIZES)).save_pretrained(tmp_path)
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    word_tokenizer(tokens, "[CLS] $A [SEP]", **special).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"{len(tokens)} tokens.*{rows}.*tokenizer_class"):
        load_denoiser(tmp_path)


def test_a_mask_that_the_vocabulary_file_has_elsewhere_is_refused(tmp_path: Path) -> None:
    """No tokenizer of word pieces can be made of a file without `[UNK]`, so there is nothing to read in its place."""
    MASKED_LMS["bert"](tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(["[MASK]", "[CLS]", "[SEP]", "[PAD]", *WORDS]))
    with pytest.raises(ValueError, match=r"mask \[MASK\] at 0"):
        load_denoiser(tmp_path)


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


@pytest.mark.parametrize("name", ["cls.species.decoder.weight", "species_head.weight", "classifier.bias"])
def test_heads_for_what_the_model_does_not_do_are_ignored_and_named(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    MASKED_LMS["bert"](tmp_path)
    tokens = torch.tensor([[6, 4, 4]])
    expected = loaded(tmp_path)(tokens)
    save_file({**load_file(tmp_path / "model.safetensors"), name: torch.zeros(3)}, tmp_path / "model.safetensors")
    assert torch.equal(loaded(tmp_path)(tokens), expected)
    assert name in caplog.text


@pytest.mark.parametrize("name", ["bert.encoder.layer.7.x", "cls.predictions.transform.second.weight", "encoder.x"])
def test_surplus_parts_of_the_network_are_refused(tmp_path: Path, name: str) -> None:
    MASKED_LMS["bert"](tmp_path)
    save_file({**load_file(tmp_path / "model.safetensors"), name: torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=f"surplus.*{name}"):
        load_denoiser(tmp_path)


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


@pytest.mark.parametrize("argument", ["prefix", "suffix"])
def test_texts_that_are_mostly_unknown_are_told(
    tmp_path: Path, argument: str, caplog: pytest.LogCaptureFixture
) -> None:
    MASKED_LMS["bert"](tmp_path)
    pipe = MaskedDiffusionPipeline.from_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    with caplog.at_level(logging.WARNING):
        pipe(**{argument: "the cat sat UNHEARD"}, length=8, num_inference_steps=1)  # pyright: ignore[reportArgumentType]
        assert not caplog.records
        pipe(**{argument: "THE CAT sat ON"}, length=8, num_inference_steps=1)  # pyright: ignore[reportArgumentType]
    (record,) = caplog.records
    assert f"`{argument}`" in record.getMessage() and "3 of 4" in record.getMessage()
