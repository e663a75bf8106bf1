"""What is known of published models before they are there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from lsd_sampler.cli import train
from lsd_sampler.denoisers import SHORT_NAMES, MaskGITDenoiser, MDLMDenoiser, RADDDenoiser, SEDDDenoiser
from lsd_sampler.denoisers.sizes import ModelSize


def ddit(hidden_size: int, blocks: int, heads: int) -> dict[str, Any]:
    sizes = {"hidden_size": hidden_size, "n_blocks": blocks, "n_heads": heads, "cond_dim": 128, "length": 1024}
    noise = {"type": "loglinear", "sigma_min": 1e-4, "sigma_max": 20}
    model = {**sizes, "dropout": 0.1, "scale_by_sigma": True}
    return {"tokens": 50257, "graph": {"type": "absorb"}, "noise": noise, "model": model}


MDLM = {
    "model_type": "mdlm", "vocab_size": 50258, "model_length": 1024, "hidden_dim": 768, "cond_dim": 128,
    "n_blocks": 12, "n_heads": 12, "dropout": 0.1, "time_conditioning": False,
}  # fmt: skip
LLAMA = {"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096, "tie_word_embeddings": False}
NETWORKS: dict[str, Callable[[], torch.nn.Module]] = {
    "radd": lambda: RADDDenoiser(ddit(768, 12, 12)),
    "radd-medium": lambda: RADDDenoiser(ddit(1024, 24, 16)),
    "sedd-small": lambda: SEDDDenoiser(ddit(768, 12, 12)),
    "sedd-medium": lambda: SEDDDenoiser(ddit(1024, 24, 16)),
    "mdlm": lambda: MDLMDenoiser(MDLM),
    "llada-8b": lambda: LlamaForCausalLM(LlamaConfig(vocab_size=126464, intermediate_size=12288, **LLAMA)),
    "diffullama": lambda: LlamaForCausalLM(LlamaConfig(vocab_size=32000, intermediate_size=11008, **LLAMA)),
    "dream-7b": lambda: Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
            num_key_value_heads=4, tie_word_embeddings=False,
        )
    ),
    "diffugpt-s": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=50257)),
    "diffugpt-m": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=50258, n_embd=1024, n_layer=24, n_head=16)),
    **{
        f"halton-maskgit-{16 * side}-{size}": lambda side=side, dim=dim, depth=depth, heads=heads: MaskGITDenoiser(
            {"input_size": side, "hidden_dim": dim, "codebook_size": 16384, "depth": depth, "heads": heads,
             "nclass": 1000}
        )
        for size, side, dim, depth, heads in (
            ("tiny", 16, 384, 6, 6), ("small", 16, 512, 12, 6), ("base", 16, 768, 12, 12), ("small", 24, 512, 12, 6),
            ("base", 24, 768, 12, 12), ("large", 24, 1024, 24, 16),
        )
    },
}  # fmt: skip
SAME = {"radd-t": "radd", "mdlm-no-flashattn": "mdlm", "llada-8b-instruct": "llada-8b"}
SAME["dream-7b-instruct"] = "dream-7b"


@pytest.mark.parametrize("name", list(SHORT_NAMES))
def test_published_sizes_are_those_of_the_networks(name: str) -> None:
    """Built without memory, from the dimensions of the papers."""
    with torch.device("meta"):
        network = NETWORKS[SAME.get(name, name)]()
    size = SHORT_NAMES[name].size
    assert sum(p.numel() for p in network.parameters()) == size.parameters
    if isinstance(network, (RADDDenoiser, SEDDDenoiser, MDLMDenoiser, MaskGITDenoiser)):
        found = ModelSize.of(network)
        for key in ("length", "columns", "prediction_type", "time_conditioned", "defers_head", "bytes_per_parameter"):
            assert getattr(found, key) == getattr(size, key), key


@pytest.mark.parametrize("name", ["sedd-medium", "llada-8b", "halton-maskgit-256-tiny"])
def test_a_dry_run_of_a_published_model_downloads_nothing(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection was made"))
    assert train.main(["--model", name, "--dry-run"]) == 0
    plan = json.loads(capsys.readouterr().out)
    published = SHORT_NAMES[name]
    assert plan["hub_id"] == published.hub_id and plan["download_bytes"] == published.size.weight_bytes
    assert plan["files"] and plan["network_calls"] > 0
    parts = dict(plan["memory_bytes"])
    assert parts.pop("total") == sum(parts.values()) > published.size.weight_bytes


@pytest.mark.parametrize("name", ["sedd-medium", "halton-maskgit-256-tiny"])
def test_offline_a_short_name_says_what_is_missing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert train.main(["--model", name, "--output-dir", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    published = SHORT_NAMES[name]
    assert all(file in error for file in published.files) and f"hf download {published.hub_id}" in error
    assert not (tmp_path / "out").exists()


def test_short_names_of_these_families() -> None:
    assert {SHORT_NAMES[name].family for name in ("sedd-small", "sedd-medium")} == {"sedd"}
    assert {SHORT_NAMES[name].family for name in ("mdlm", "mdlm-no-flashattn")} == {"mdlm"}
