"""Every family with a mask, from its files through `lsd-train` to `lsd-sample`; and what published ones are like."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.ddit_checkpoints import make
from helpers.reference_language_models import DREAM, GPT2, LLADA, diffugpt_tensors, dream_tensors, llada_tensors, save
from helpers.tiny_language_models import save_bert, save_esm, save_modernbert, save_roberta
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from lsd_sampler import LSDScheduler, load_denoiser
from lsd_sampler.cli import sample, train
from lsd_sampler.denoisers import SHORT_NAMES, MaskGITDenoiser, MDLMDenoiser, RADDDenoiser, SEDDDenoiser
from lsd_sampler.denoisers.sizes import ModelSize
from lsd_sampler.training import DistillConfig
from lsd_sampler.training.cost import memory
from lsd_sampler.training.teacher_plan import TeacherPlan


def save_maskgit(folder: Path) -> None:
    sizes = {"input_size": 3, "hidden_dim": 12, "codebook_size": 7, "depth": 1, "heads": 3, "nclass": 4}
    MaskGITDenoiser(sizes).save_pretrained(folder)


def save_diffugpt(folder: Path) -> None:
    """With its mask where the published small one has it: a token of the vocabulary."""
    config = {**GPT2, "masked_diffusion": {"mask_token_id": 5, "shifted": True, "reused_mask": True}}
    save(folder, config, diffugpt_tensors())


FAMILIES: dict[str, Callable[[Path], Any]] = {
    "radd": lambda folder: make("radd").save_pretrained(folder),
    "sedd": lambda folder: make("sedd").save_pretrained(folder),
    "mdlm": lambda folder: make("mdlm").save_pretrained(folder),
    "mdlm-time": lambda folder: make("mdlm-time").save_pretrained(folder),
    "mdlm-repository": lambda folder: make("mdlm-repository").save_pretrained(folder),
    "maskgit": save_maskgit,
    "bert": save_bert,
    "modernbert": save_modernbert,
    "esm": save_esm,
    "roberta": save_roberta,
    "llada": lambda folder: save(folder, {**LLADA, "max_sequence_length": 12}, llada_tensors()),
    "dream": lambda folder: save(folder, {**DREAM, "max_position_embeddings": 12}, dream_tensors()),
    "diffugpt": save_diffugpt,
}


@pytest.mark.parametrize("name", list(FAMILIES))
def test_from_files_to_samples(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With both methods; the sampler's config says what the model is, and all calls were foreseen."""
    model = tmp_path / "model"
    model.mkdir()
    FAMILIES[name](model)
    common = ["--model", str(model), "--nfe", "2", "3", "--num-sequences", "2", "--teacher-steps", "6"]
    for method in ("path_kl", "lsd"):
        argv = [*common, "--method", method, "--output-dir", str(tmp_path / method)]
        assert train.main([*argv, "--dry-run"]) == 0
        planned = json.loads(capsys.readouterr().out)
        assert train.main(argv) == 0, capsys.readouterr().err
        done = json.loads((tmp_path / method / "metrics.jsonl").read_text().splitlines()[-1])
        assert done["network_calls"] <= planned["network_calls"] and planned["memory_bytes"]["total"] > 0
        out = tmp_path / f"{method}.jsonl"
        argv = ["--model", str(model), "--sampler", str(tmp_path / method), "--nfe", "3", "--output", str(out)]
        assert sample.main([*argv, "--num-samples", "2"]) == 0, capsys.readouterr().err
        capsys.readouterr()
        ids = torch.tensor([json.loads(line)["ids"] for line in out.read_text().splitlines()])
        denoiser, config = load_denoiser(model), LSDScheduler.from_pretrained(tmp_path / method).config
        assert ids.shape == (2, denoiser.length) and not bool((ids == denoiser.mask_token_id).any())
        assert config.mask_token_id == denoiser.mask_token_id and config.prediction_type == denoiser.prediction_type


# ---- what is known of published models before they are there ----


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


def test_memory_grows_with_what_needs_it() -> None:
    size = SHORT_NAMES["sedd-small"].size
    config = DistillConfig(method="path_kl", num_sequences=4, nfe=(4, 8), num_states=16)

    def total(size: ModelSize = size, length: int = 1024, **options: Any) -> int:
        changed = DistillConfig(**{**config.to_dict(), **options})
        return sum(memory(size, changed.resolve(TeacherPlan(length, 1, length, 0))).values())

    assert total() < total(num_sequences=8) < total(num_sequences=8, method="lsd")
    assert total(batch_size=2) < total() and total(length=128) < total()
    whole = ModelSize(**{**vars(size), "defers_head": False})
    assert total(whole) - total() > 4 * 1024 * 50258 * 4  # at least a whole output more
    assert total(method="lsd", domain="log_score") > total(method="lsd")
