"""RADD: the official numbers, and its files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.ddit_checkpoints import SMALL_RADD, save_small_radd
from helpers.golden_files import fixture_path
from safetensors.torch import load_file

from lsd_sampler.denoisers import RADDDenoiser, load_denoiser


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_small_radd(tmp_path)


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


def test_output_is_the_same_with_and_without_gradients() -> None:
    model = RADDDenoiser(SMALL_RADD).eval()
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
    model = RADDDenoiser(SMALL_RADD)
    model.save_pretrained(tmp_path, variant=variant)
    assert json.loads((tmp_path / "config.json").read_text()) == SMALL_RADD
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


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"tokens": 0}, "tokens"),
        ({"model": {**SMALL_RADD["model"], "n_heads": 3}}, "n_heads"),
        ({"model": {**SMALL_RADD["model"], "length": None}}, "length"),
        ({"model": {**SMALL_RADD["model"], "length": "long"}}, "length"),
        ({"noise": {"type": "linear"}}, "noise.type"),
    ],
)
def test_bad_config_is_named(folder: Path, change: dict[str, Any], culprit: str) -> None:
    (folder / "config.json").write_text(json.dumps({**SMALL_RADD, **change}))
    with pytest.raises(ValueError, match=f"config.json.*{culprit}"):
        load_denoiser(folder)


def test_length_of_the_published_models_where_none_is_said(folder: Path) -> None:
    config = {**SMALL_RADD, "model": {key: value for key, value in SMALL_RADD["model"].items() if key != "length"}}
    (folder / "config.json").write_text(json.dumps(config))
    assert load_denoiser(folder).length == 1024
