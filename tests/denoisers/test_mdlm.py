"""MDLM: the official numbers, the laws of its predictions, its files, and its mask."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.ddit_checkpoints import (
    CONFIGS,
    MDLM_HUB,
    MDLM_REPOSITORY,
    activations,
    canvas,
    lightning,
    make,
    same_weights,
    save,
    time_of,
)
from helpers.golden_files import fixture_path
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel

from lsd_sampler import MaskedDiffusionPipeline
from lsd_sampler.denoisers import MDLMDenoiser, load_denoiser


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[MASK]", "[SEP]", "a", "b", "c"]
MDLM_FIXTURES = ("mdlm", "mdlm_timecond", "mdlm_hf", "mdlm_hf_timecond")
CLOSE = {"atol": 2e-5, "rtol": 2e-5}


@pytest.mark.parametrize("name", MDLM_FIXTURES)
@torch.no_grad()
def test_official_numbers_of_mdlm(name: str) -> None:
    model, expected = load_denoiser(fixture_path(name)), load_file(fixture_path(name, "expected.safetensors"))
    assert isinstance(model, MDLMDenoiser)
    tokens, sigma = expected["input_ids"], expected["sigma"]
    for given in (sigma, expected["sigma_effective"]):
        torch.testing.assert_close(model.logits(tokens, given), expected["logits"], **CLOSE)
    torch.testing.assert_close(model(tokens, time_of(model, sigma)), expected["log_prob_x0"], **CLOSE)
    if not model.time_conditioned:
        torch.testing.assert_close(model(tokens), expected["log_prob_x0"], **CLOSE)
    if "short.logits" in expected:
        short = model.logits(expected["short.input_ids"], expected["short.sigma_effective"])
        torch.testing.assert_close(short, expected["short.logits"], **CLOSE)
    if "score" in expected:
        torch.testing.assert_close(model.log_score(tokens, sigma).exp(), expected["score"], rtol=1e-4, atol=0)
    seen = activations(model, tokens, sigma)
    for key in [key for key in expected if key.startswith("act.")]:
        torch.testing.assert_close(seen[key], expected[key], **CLOSE)


@pytest.mark.parametrize("name", ["mdlm", "mdlm_timecond"])
@torch.no_grad()
def test_official_numbers_of_mdlm_trained_on_scores(name: str, tmp_path: Path) -> None:
    expected = load_file(fixture_path(name, "expected.safetensors"))
    config = json.loads(fixture_path(name, "config.json").read_text())
    config["config"] |= {"parameterization": "sedd", "time_conditioning": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shutil.copy(fixture_path(name, "model.safetensors"), tmp_path)
    model = load_denoiser(tmp_path)
    assert isinstance(model, MDLMDenoiser) and model.prediction_type == "log_score"
    tokens, sigma = expected["input_ids"], expected["sigma"]
    torch.testing.assert_close(model.log_score(tokens, sigma), expected["sedd_param.log_score"], **CLOSE)
    torch.testing.assert_close(model(tokens, time_of(model, sigma)), expected["sedd_param.log_score"], **CLOSE)


@pytest.mark.parametrize("subs_masking", [False, True])
@pytest.mark.parametrize("name", ["mdlm", "mdlm_timecond"])
@torch.no_grad()
def test_official_numbers_of_mdlm_trained_as_d3pm(name: str, subs_masking: bool, tmp_path: Path) -> None:
    """`subs_masking` takes the mask's column out, and leaves the rest of each row as it is but for a constant."""
    expected = load_file(fixture_path(name, "expected.safetensors"))
    config = json.loads(fixture_path(name, "config.json").read_text())
    config["config"] |= {"parameterization": "d3pm", "subs_masking": subs_masking}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shutil.copy(fixture_path(name, "model.safetensors"), tmp_path)
    model = load_denoiser(tmp_path)
    assert isinstance(model, MDLMDenoiser) and model.prediction_type == "logits"
    tokens, sigma = expected["input_ids"], expected["sigma"]
    out, log_prob = model(tokens, time_of(model, sigma)), expected["d3pm_param.log_prob"]
    if subs_masking:
        assert model.mask_token_id == log_prob.shape[-1] - 1
        assert (out[..., -1] < -0.99e6).all()
        out, log_prob = out[..., :-1], log_prob[..., :-1].log_softmax(-1)
    torch.testing.assert_close(out, log_prob, **CLOSE)
    torch.testing.assert_close(model.log_score(tokens, sigma).exp(), expected["score"], rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        ("loglinear", "log_linear"),
        ("geometric", "geometric"),
        ("linear", "linear"),
        ("cosine", "cosine"),
        ("cosinesqr", "cosine_squared"),
    ],
)
def test_noise_of_mdlm(official: str, ours: str) -> None:
    noise = {"type": official, "sigma_min": 0.01, "sigma_max": 5}
    model = MDLMDenoiser(CONFIGS["mdlm"] | {"noise": noise})
    assert model.noise_schedule == ours
    if ours in ("geometric", "linear"):
        assert model.scheduler_config().items() >= {"sigma_min": 0.01, "sigma_max": 5}.items()


@pytest.mark.parametrize("name", ["mdlm", "mdlm-time", "mdlm-repository"])
@torch.no_grad()
def test_mdlm_gives_laws_of_the_clean_tokens(name: str) -> None:
    model = make(name).double()
    tokens = canvas(model)
    p = model(tokens, torch.rand(3)).exp()
    torch.testing.assert_close(p.sum(-1), torch.ones(3, 8).double(), rtol=1e-12, atol=0)
    assert not p[..., model.mask_token_id].any()
    known = tokens != model.mask_token_id
    assert torch.equal(p.argmax(-1)[known], tokens[known]) and (p.amax(-1)[known] == 1).all()


@pytest.mark.parametrize("name", ["mdlm", "mdlm-time"])
@torch.no_grad()
def test_scores_of_mdlm_add_up_to_the_odds_of_the_noise(name: str) -> None:
    model = make(name).double()
    assert isinstance(model, MDLMDenoiser)
    tokens, sigma = canvas(model), torch.tensor([3.0, 0.4, 0.01]).double()
    scores, odds = model.log_score(tokens, sigma).exp(), 1 / torch.expm1(sigma)[:, None].expand(3, 8)
    masked, to_mask = tokens == model.mask_token_id, scores[..., model.mask_token_id]
    torch.testing.assert_close(scores[..., :-1].sum(-1)[masked], odds[masked])
    torch.testing.assert_close(to_mask[~masked], 1 / odds[~masked])
    assert (scores.gather(-1, tokens[..., None]) == 1).all()


@torch.no_grad()
def test_a_time_free_model_ignores_the_time() -> None:
    model = make("mdlm")
    tokens = canvas(model)
    assert torch.equal(model(tokens), model(tokens, torch.rand(3)))


@pytest.mark.parametrize("name", ["mdlm", "mdlm-repository"])
def test_mdlm_in_shards(name: str, tmp_path: Path) -> None:
    model = save(name, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    keys, weight_map = sorted(tensors), {}
    for i in range(2):
        shard = f"model-0000{i + 1}-of-00002.safetensors"
        save_file({key: tensors[key] for key in keys[i::2]}, tmp_path / shard)
        weight_map |= dict.fromkeys(keys[i::2], shard)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert same_weights(load_denoiser(tmp_path), model)
    save_file({key: tensors[key] for key in keys[3::2]}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(ValueError, match=f"index.json lacks tensors.*{keys[1]}"):
        load_denoiser(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(OSError, match="model-00002-of-00002.safetensors"):
        load_denoiser(tmp_path)


def write_tokenizer(folder: Path, mask: str | None) -> None:
    words = Tokenizer(WordLevel({w: i for i, w in enumerate(["a", "b", "c", "[MASK]", "d", "e", "f", "g"])}, "a"))
    words.add_special_tokens([AddedToken("[MASK]", special=True)])
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"mask_token": mask}))


@pytest.mark.parametrize("name", ["mdlm", "mdlm-repository"])
@torch.no_grad()
def test_mask_of_the_tokenizer_is_the_mask(name: str, tmp_path: Path) -> None:
    model = save(name, tmp_path / "a")
    write_tokenizer(tmp_path / "a", mask=None)
    assert load_denoiser(tmp_path / "a").mask_token_id == 7
    write_tokenizer(tmp_path / "a", mask="[MASK]")
    inside = load_denoiser(tmp_path / "a")
    assert (inside.mask_token_id, inside.vocab_size) == (3, 7)
    inside.save_pretrained(tmp_path / "b")
    again = load_denoiser(tmp_path / "b")
    assert again.mask_token_id == 3 and same_weights(again, model)
    assert load_denoiser(tmp_path / "a", mask_token_id=5).mask_token_id == 5
    p = inside(torch.tensor([[3, 7, 3]])).double().exp()
    assert not p[0, 0, 3] and p[0, 1, 7] == 1
    torch.testing.assert_close(p.sum(-1), torch.ones(1, 3).double())
    pipeline = MaskedDiffusionPipeline.from_pretrained(tmp_path / "b")
    out = pipeline([7, 7], num_samples=8, num_inference_steps=2, output_type="ids").sequences
    assert (out[:, :2] == 7).all() and not (out == 3).any()


def test_a_mask_outside_the_vocabulary_is_not_the_models(tmp_path: Path) -> None:
    save("mdlm", tmp_path)
    words = Tokenizer(WordLevel({str(i): i for i in range(9)}, "0"))
    words.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"mask_token": "8"}')
    assert load_denoiser(tmp_path).mask_token_id == 7


def test_mask_of_a_tokenizer_without_a_config_of_its_own(tmp_path: Path) -> None:
    save("mdlm", tmp_path)
    write_tokenizer(tmp_path, None)
    (tmp_path / "tokenizer_config.json").unlink()
    assert load_denoiser(tmp_path).mask_token_id == 3
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    assert load_denoiser(tmp_path).mask_token_id == 3


def lm1b(layout: str, rows: int, tokenizer: str | None) -> dict[str, Any]:
    name = {} if tokenizer is None else {"tokenizer_name_or_path": tokenizer}
    if layout == "hub":
        return {**MDLM_HUB, "vocab_size": rows, **name}
    return {"vocab_size": rows, "config": {**MDLM_REPOSITORY["config"], "data": {"train": "lm1b", **name}}}


@pytest.mark.parametrize("layout", ["hub", "repository"])
@pytest.mark.parametrize(
    ("rows", "tokenizer", "mask"),
    [
        (30522, None, 103),
        (30522, "bert-base-uncased", 103),
        (200, "google-bert/bert-base-uncased", 103),
        (30522, "/data/tokenizers/mine", 103),
        (35, "text8", 4),
        (50258, None, 50257),
        (50258, "gpt2", 50257),
        (30522, "gpt2", 30521),
    ],
)
def test_mask_of_the_tokenizer_that_the_config_names(
    layout: str, rows: int, tokenizer: str | None, mask: int, caplog: pytest.LogCaptureFixture
) -> None:
    config = lm1b(layout, rows, tokenizer)
    with torch.device("meta"):
        model = MDLMDenoiser(config)
        assert model.mask_token_id == mask and not caplog.text
        assert MDLMDenoiser(model._config()).mask_token_id == mask
        assert MDLMDenoiser(config, 7).mask_token_id == 7


def test_an_unknown_tokenizer_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    for tokenizer in ("mine", "bert-base-uncased"):
        caplog.clear()
        assert MDLMDenoiser(lm1b("repository", 8, tokenizer)).mask_token_id == 7
        assert f"'{tokenizer}'" in caplog.text and "`mask_token_id`" in caplog.text


def test_lightning_checkpoint_names_its_tokenizer(tmp_path: Path) -> None:
    model = MDLMDenoiser(lm1b("repository", 200, None)).eval()
    config = lm1b("repository", 200, "bert-base-uncased")["config"]
    torch.save(lightning(model, None, hyper_parameters={"config": config}), tmp_path / "last.ckpt")
    loaded = load_denoiser(tmp_path)
    assert loaded.mask_token_id == 103
    loaded.save_pretrained(tmp_path / "hub")
    assert load_denoiser(tmp_path / "hub").mask_token_id == 103
