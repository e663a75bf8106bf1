"""Trained denoisers: the official numbers, the files, and what happens when a file is wrong."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.golden_files import fixture_path
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from lsd_sampler.denoisers import DENOISERS, SHORT_NAMES, MarkovDenoiser, RADDDenoiser, available_names, load_denoiser
from lsd_sampler.denoisers.files import Checkpoint
from lsd_sampler.scheduling_lsd import LSDScheduler


CONFIG: dict[str, Any] = {
    "tokens": 5,
    "noise": {"type": "loglinear", "sigma_min": 1e-4, "sigma_max": 20},
    "model": {"type": "ddit_wot", "hidden_size": 8, "n_heads": 2, "n_blocks": 2, "length": 6, "dropout": 0.1},
    "untouched": {"any": ["thing"]},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small RADD checkpoint with a tokenizer."""
    model = RADDDenoiser(CONFIG)
    model.save_pretrained(tmp_path)
    words = Tokenizer(WordLevel({w: i for i, w in enumerate("abcde")}, unk_token="a"))
    words.pre_tokenizer = Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    words.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def tokens_of(model: RADDDenoiser, batch_size: int = 3) -> torch.Tensor:
    return torch.randint(model.vocab_size + 1, (batch_size, model.length))


@torch.no_grad()
def test_official_numbers() -> None:
    model = load_denoiser(fixture_path("radd"))
    assert isinstance(model, RADDDenoiser)
    expected = load_file(fixture_path("radd", "expected.safetensors"))
    for prefix in ("", "short."):
        out = model(expected[f"{prefix}input_ids"])
        torch.testing.assert_close(out, expected[f"{prefix}log_prob"], atol=2e-5, rtol=2e-5)
    logits = model.logits(expected["input_ids"])
    torch.testing.assert_close(logits, expected["logits"], atol=2e-5, rtol=2e-5)


def test_attributes_and_scheduler_config(folder: Path) -> None:
    model = load_denoiser(folder)
    assert (model.mask_token_id, model.vocab_size, model.length, model.training) == (5, 5, 6, False)
    assert (model.prediction_type, model.time_conditioned, model.name_or_path) == ("logits", False, str(folder))
    scheduler = LSDScheduler(**model.scheduler_config())
    assert scheduler.config.mask_token_id == 5
    assert scheduler.config.noise_schedule == "log_linear"
    geometric = RADDDenoiser({**CONFIG, "noise": {"type": "geometric", "sigma_min": 1e-3, "sigma_max": 10}})
    assert geometric.scheduler_config().items() >= {"noise_schedule": "geometric", "sigma_min": 1e-3}.items()


def test_output_is_the_same_with_and_without_gradients() -> None:
    model = RADDDenoiser(CONFIG).eval()
    tokens = tokens_of(model)
    with_gradient = model(tokens)
    with_gradient[..., 0].sum().backward()
    assert model.output_layer.linear.weight.grad is not None
    with torch.no_grad():
        without = model(tokens, torch.rand(3))
    torch.testing.assert_close(without, with_gradient)
    torch.testing.assert_close(without[..., :-1].exp().sum(-1), torch.ones(3, 6))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(folder: Path, dtype: torch.dtype) -> None:
    full, half = load_denoiser(folder), load_denoiser(folder, dtype=str(dtype).removeprefix("torch."))
    assert isinstance(full, RADDDenoiser) and isinstance(half, RADDDenoiser)
    assert half.dtype == dtype
    assert half.rotary_emb.inv_freq.dtype == torch.float32
    tokens = tokens_of(full)
    with torch.no_grad():
        out = half(tokens)
        assert out.dtype == dtype
        torch.testing.assert_close(out.float(), full(tokens), atol=0.1, rtol=0.1)
        torch.testing.assert_close(out[..., :-1].double().exp().sum(-1), torch.ones(3, 6).double(), atol=0.03, rtol=0)


@pytest.mark.parametrize("variant", [None, "ema"])
def test_round_trip_is_exact(tmp_path: Path, variant: str | None) -> None:
    model = RADDDenoiser(CONFIG)
    model.save_pretrained(tmp_path, variant=variant)
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIG
    # as diffusers' pipelines call it
    loaded = RADDDenoiser.from_pretrained(
        tmp_path, torch_dtype=None, device_map=None, variant=variant, use_safetensors=None, low_cpu_mem_usage=True
    )
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )
    loaded.save_pretrained(tmp_path, variant=variant)  # over the file that its weights may be mapped from
    assert {p.name for p in tmp_path.iterdir()} == {
        "config.json",
        f"model.{variant}.safetensors" if variant else "model.safetensors",
    }


def test_tokenizer_comes_along(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    model = load_denoiser(folder)
    assert model.tokenizer is not None
    assert model.tokenizer("b d").input_ids == [1, 3]
    copy = tmp_path_factory.mktemp("copy")
    model.save_pretrained(copy)
    copied = load_denoiser(copy).tokenizer
    assert copied is not None
    assert copied.decode([1, 3]) == "b d"


def test_hub_tokenizer_is_fetched_late_and_may_be_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import transformers

    asked = []

    def refuse(name: str) -> None:
        asked.append(name)
        raise OSError("offline")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    model = RADDDenoiser({**CONFIG, "tokens": 50257})
    model._set_tokenizer(Path("nowhere"))
    assert asked == []
    assert model.tokenizer is None
    assert model.tokenizer is None
    assert asked == ["gpt2"]
    assert "'gpt2'" in caplog.text


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


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"tokens": 0}, "tokens"),
        ({"model": {**CONFIG["model"], "n_heads": 3}}, "n_heads"),
        ({"model": {**CONFIG["model"], "length": None}}, "length"),
        ({"model": {**CONFIG["model"], "length": "long"}}, "length"),
        ({"noise": {"type": "linear"}}, "noise.type"),
    ],
)
def test_bad_config_is_named(folder: Path, change: dict[str, Any], culprit: str) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, **change}))
    with pytest.raises(ValueError, match=f"config.json.*{culprit}"):
        load_denoiser(folder)


def test_length_of_the_published_models_where_none_is_said(folder: Path) -> None:
    config = {**CONFIG, "model": {key: value for key, value in CONFIG["model"].items() if key != "length"}}
    (folder / "config.json").write_text(json.dumps(config))
    assert load_denoiser(folder).length == 1024


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


def test_subfolder(folder: Path) -> None:
    shutil.copytree(folder, folder / "inner")
    assert load_denoiser(folder, subfolder="inner").vocab_size == 5


def test_folders_are_recognised_by_content(folder: Path) -> None:
    for name in DENOISERS.names():
        assert DENOISERS[name].recognises(Checkpoint(folder)) == (DENOISERS[name] is RADDDenoiser)
    descended = {**CONFIG, "model": {"n_blocks": 2}, "graph": {"type": "absorb"}}
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


def test_pickles_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`safe_serialization`"):
        MarkovDenoiser(torch.eye(2), length=2).save_pretrained(tmp_path, safe_serialization=False)
