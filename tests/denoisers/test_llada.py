"""LLaDA and Dream: official files against the textbook forward pass, written down here anew."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.masked_lms import loaded
from helpers.reference_language_models import (
    DREAM,
    GPT2,
    LLADA,
    D,
    V,
    diffugpt_tensors,
    dream_logits,
    dream_tensors,
    llada_logits,
    llada_tensors,
    save,
)
from safetensors.torch import load_file, save_file

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.denoisers import load_denoiser


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_llada(tmp_path: Path, tied: bool) -> None:
    tensors = llada_tensors(tied)
    model = loaded(save(tmp_path, {**LLADA, "weight_tying": tied}, tensors))
    assert (model.mask_token_id, model.vocab_size, model.length) == (20, V - 1, 32)
    assert model._options()["frame"] == [[], []] and model._options()["excluded_token_ids"] == []
    tokens = torch.randint(V, (2, 11))
    torch.testing.assert_close(model(tokens), llada_logits(tensors, tokens), atol=2e-5, rtol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("left_out", ["missing", "null"])
@pytest.mark.parametrize("key", ["embedding_size", "n_kv_heads"])
def test_sizes_that_llada_need_not_repeat(tmp_path: Path, key: str, left_out: str) -> None:
    tensors, config = llada_tensors(), {**LLADA, key: None}
    if left_out == "missing":
        del config[key]
    tokens = torch.randint(V, (2, 11))
    model = loaded(save(tmp_path, config, tensors))
    torch.testing.assert_close(model(tokens), llada_logits(tensors, tokens), atol=2e-5, rtol=2e-5)


@torch.no_grad()
def test_llada_in_shards(tmp_path: Path) -> None:
    """As published: several files and an index, in bf16."""
    tensors = {name: x.bfloat16() for name, x in llada_tensors().items()}
    names = sorted(tensors)
    shards = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, chosen in shards.items():
        save_file({name: tensors[name] for name in chosen}, tmp_path / file)
    index = {"metadata": {}, "weight_map": {name: file for file, chosen in shards.items() for name in chosen}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text(json.dumps(LLADA))
    model = loaded(tmp_path)
    assert model.dtype == torch.bfloat16
    tokens = torch.randint(V, (2, 11))
    expected = llada_logits({name: x.float() for name, x in tensors.items()}, tokens)
    assert (model(tokens).float() - expected).abs().mean() < 0.05
    torch.testing.assert_close(loaded(tmp_path, dtype="float32")(tokens), expected, atol=2e-5, rtol=2e-5)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(OSError, match="model-00002-of-00002.safetensors"):
        load_denoiser(tmp_path)
    index["weight_map"] = dict.fromkeys(names, "../elsewhere.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"index\.json.*weight_map"):
        load_denoiser(tmp_path)


@pytest.mark.parametrize(
    ("damage", "key"),
    [
        ("missing", "model.transformer.blocks.1.ff_out.weight"),
        ("missing", "model.transformer.ff_out.weight"),
        ("surplus", "model.transformer.blocks.0.q_norm.weight"),
        ("shape", "model.transformer.blocks.0.ff_proj.weight"),
    ],
)
def test_weights_that_do_not_fit_are_named_as_in_the_file(tmp_path: Path, damage: str, key: str) -> None:
    tensors = llada_tensors()
    tensors.pop(key, None)
    if damage != "missing":
        tensors[key] = torch.zeros(3, D)
    said = {"missing": "lacks", "surplus": "has surplus", "shape": "must have shape"}[damage]
    save(tmp_path, LLADA, tensors)
    with pytest.raises(ValueError, match=f"(?s)model.safetensors.*{key}") as error:
        load_denoiser(tmp_path)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("config", "change", "culprit"),
    [
        (LLADA, {"block_type": "sequential"}, "block_type"),
        (LLADA, {"include_qkv_bias": True}, "include_qkv_bias"),
        (LLADA, {"rope_theta": None}, "rope_theta"),
        (LLADA, {"embedding_size": None, "vocab_size": None}, "embedding_size"),
        (LLADA, {"embedding_size": 0}, "embedding_size"),
        (LLADA, {"mask_token_id": V}, "mask_token_id"),
        (LLADA, {"mask_token_id": None}, "mask_token_id"),
        (DREAM, {"rope_theta": None}, "rope_theta"),
        (DREAM, {"hidden_size": "wide"}, "hidden_size"),
    ],
)
def test_bad_configs_are_named(tmp_path: Path, config: dict[str, Any], change: dict[str, Any], culprit: str) -> None:
    save(tmp_path, {**config, **change}, llada_tensors() if config is LLADA else dream_tensors())
    with pytest.raises(ValueError, match=f"config.json.*`{culprit}`"):
        load_denoiser(tmp_path)


@torch.no_grad()
def test_dream(tmp_path: Path) -> None:
    """Rows move by one and the first is kept: official from the second position on, and the first is given."""
    tensors = dream_tensors()
    model = loaded(save(tmp_path, DREAM, tensors))
    assert (model.mask_token_id, model.vocab_size, model.length) == (20, V - 1, 2048)
    tokens = torch.randint(V, (2, 11))
    official = dream_logits(tensors, tokens)
    shifted = torch.cat([official[:, :1], official[:, :-1]], dim=1)
    torch.testing.assert_close(model(tokens), shifted, atol=2e-5, rtol=2e-5)
    # from nothing: after the beginning-of-text token, which the canvas does not hold
    framed = loaded(tmp_path, frame=True)
    assert framed.length == 2048
    bos = torch.full((2, 1), 17)
    official = dream_logits(tensors, torch.cat([bos, tokens], dim=1))[:, :-1]
    torch.testing.assert_close(framed(tokens), official, atol=2e-5, rtol=2e-5)
    for start in (model, framed):
        pipeline = MaskedDiffusionPipeline(start, LSDScheduler(**start.scheduler_config()))
        out: Any = pipeline(length=9, num_samples=3, num_inference_steps=3, output_type="ids")
        assert out.sequences.shape == (3, 9) and not (out.sequences == 20).any()


def test_dream_has_the_tokenizer_of_qwen2(tmp_path: Path) -> None:
    """Under the name of a class of its repository, whose code is not run."""
    save(tmp_path, DREAM, dream_tensors())
    pieces = ["l", "o", "w", "lo", "low", "\u0120", "\u0120low"]
    (tmp_path / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nl o\nlo w\n\u0120 low\n")
    tokens = {"17": "<|beginoftext|>", "18": "<|endoftext|>", "20": "<|mask|>"}
    config = {
        "tokenizer_class": "DreamTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        "added_tokens_decoder": {i: {"content": token, "special": True} for i, token in tokens.items()},
        "mask_token": "<|mask|>", "bos_token": "<|beginoftext|>", "unk_token": None,
    }  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer: Any = load_denoiser(tmp_path).tokenizer
    assert tokenizer("low low<|mask|>", add_special_tokens=False).input_ids[:2] == [4, 6]
    assert tokenizer.decode([4, 6]) == "low low"


@torch.no_grad()
@pytest.mark.parametrize("family", ["llada", "dream", "diffugpt"])
def test_saved_as_a_checkpoint_of_transformers(tmp_path: Path, family: str) -> None:
    config, tensors = {
        "llada": (LLADA, llada_tensors), "dream": (DREAM, dream_tensors), "diffugpt": (GPT2, diffugpt_tensors),
    }[family]  # fmt: skip
    options = {"mask_token_id": 5} if family == "diffugpt" else {}
    model = loaded(save(tmp_path, config, tensors()), **options)
    model.save_pretrained(tmp_path / "saved")
    again = loaded(tmp_path / "saved")
    assert again._options() == model._options()
    tokens = torch.randint(model.vocab_size + 1, (2, 9))
    assert torch.equal(again(tokens), model(tokens))
    assert "lm_head.weight" in load_file(tmp_path / "saved" / "model.safetensors") or family == "diffugpt"
