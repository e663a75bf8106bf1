"""Checkpoints of transformers: heads of other tasks, the mask, and the tokens around a text."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.masked_lms import edit, loaded
from helpers.tiny_language_models import BERT_TOKENS, MASKED_LMS, SIZES, save_without_mask
from safetensors.torch import load_file, save_file
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForPreTraining,
    GPT2Config,
    GPT2LMHeadModel,
)

from lsd_sampler.denoisers import load_denoiser


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


def test_heads_for_other_tasks_may_lie_in_the_file(folder: Path) -> None:
    """As in the published BERT, which has a pooler and next-sentence prediction."""
    config = BertConfig(vocab_size=len(BERT_TOKENS), max_position_embeddings=14, **SIZES)
    BertForPreTraining(config).save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    assert {"bert.pooler.dense.weight", "cls.seq_relationship.weight"} <= tensors.keys()
    kept = loaded(folder).network.state_dict()
    assert all(torch.equal(kept[name], x) for name, x in tensors.items() if name in kept)


def test_models_that_do_not_say_what_they_need(folder: Path, tmp_path: Path) -> None:
    edit(folder, hidden_size="wide")
    with pytest.raises(ValueError, match="config.json.*hidden_size"):
        load_denoiser(folder)
    edit(folder, hidden_size=16)
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(ValueError, match="config.json.*BertForMaskedLM is the mask.*`mask_token_id`"):
        load_denoiser(folder)
    with pytest.raises(ValueError, match="`frame` is True"):
        load_denoiser(folder, mask_token_id=4, frame=True)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=12))
    gpt2.save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ValueError, match="GPT2LMHeadModel is a causal.*`mask_token_id`"):
        load_denoiser(tmp_path / "gpt2")
    bart = BartConfig(
        vocab_size=20, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8,
    )  # fmt: skip
    BartForConditionalGeneration(bart).save_pretrained(tmp_path / "bart")
    with pytest.raises(ValueError, match="encoder-decoder"):
        load_denoiser(tmp_path / "bart", mask_token_id=4)


def test_without_knowing_the_frame_it_goes_on_and_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in folder.glob("*token*"):
        path.unlink()
    model = loaded(folder, mask_token_id=4)
    assert model._options()["frame"] == [[], []] and model.length == 14
    assert "frame" in caplog.text


@pytest.mark.parametrize("modern", [False, True], ids=["bert", "modernbert"])
@pytest.mark.parametrize("template", [True, False], ids=["template", "ids only"])
def test_a_mask_that_is_given_keeps_the_frame_of_the_tokenizer(
    tmp_path: Path, modern: bool, template: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """`[CLS]` and `[SEP]`, whether the tokenizer puts them around a text or only has them."""
    tokens = ["[PAD]", "[BLANK]", "[CLS]", "[SEP]", "[UNK]", *BERT_TOKENS[5:]]
    save_without_mask(tmp_path, tokens, modern)
    if not template:
        file = tmp_path / "tokenizer.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": None}))
    options = loaded(tmp_path, mask_token_id=1)._options()
    assert options["frame"] == [[2], [3]] and options["mask_token_id"] == 1
    assert options["excluded_token_ids"] == [0, 2, 3, 4] and "frame" not in caplog.text
    with pytest.raises(ValueError, match="is the mask: pass `mask_token_id`"):
        load_denoiser(tmp_path)


@pytest.mark.parametrize("modern", [False, True], ids=["bert", "modernbert"])
@pytest.mark.parametrize("name", ["[MASK]", "<mask>"])
def test_a_special_token_of_a_usual_name_is_the_mask(tmp_path: Path, modern: bool, name: str) -> None:
    tokens = [name if token == "[MASK]" else token for token in BERT_TOKENS]
    save_without_mask(tmp_path, tokens, modern, additional_special_tokens=[name])  # pyright: ignore
    options = loaded(tmp_path)._options()
    assert (options["mask_token_id"], options["frame"]) == (4, [[2], [3]])
    assert options["excluded_token_ids"] == [0, 1, 2, 3]
    shutil.rmtree(tmp_path)
    save_without_mask(tmp_path, tokens, modern)  # an ordinary word
    with pytest.raises(ValueError, match="is the mask: pass `mask_token_id`"):
        load_denoiser(tmp_path)
