"""Tokenizers that are not those of the network beside them: another is read, or they are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.masked_lms import loaded
from helpers.tiny_language_models import BERT_TOKENS, MASKED_LMS, SIZES, WORDS, word_tokenizer
from transformers import AlbertConfig, AlbertForMaskedLM, BertConfig, BertForMaskedLM

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.denoisers import load_denoiser


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
