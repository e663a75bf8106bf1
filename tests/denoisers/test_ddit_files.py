"""SEDD and MDLM: their files, what happens when one is wrong, and samplers distilled for them from the shell."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.ddit_checkpoints import (
    CONFIGS,
    MASKED,
    MDLM_HUB,
    MDLM_REPOSITORY,
    SEDD_ABSORB,
    SEDD_UNIFORM,
    make,
    same_weights,
    save,
)
from safetensors.torch import load_file, save_file

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.cards import sampler_card as cards
from lsd_sampler.cli import sample, train
from lsd_sampler.denoisers import DENOISERS, countdown, load_denoiser
from lsd_sampler.denoisers.files import Checkpoint
from lsd_sampler.sampling.solvers import SOLVERS


FAMILIES = {name: name.split("-")[0] for name in CONFIGS}


@pytest.mark.parametrize("name", CONFIGS)
def test_round_trip_is_exact(name: str, tmp_path: Path) -> None:
    model = save(name, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIGS[name]
    in_file = load_file(tmp_path / "model.safetensors")
    prefix = "backbone." if "model_type" in CONFIGS[name] else ""
    assert in_file.keys() == {prefix + key for key in model.state_dict()}
    assert f"{prefix}rotary_emb.inv_freq" in in_file
    loaded = load_denoiser(tmp_path)
    assert type(loaded) is type(model) and same_weights(loaded, model) and not loaded.training
    loaded.save_pretrained(tmp_path)  # over the file that its weights may be mapped from
    assert same_weights(load_denoiser(tmp_path), model)
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIGS[name]


@pytest.mark.parametrize("name", ["sedd", "mdlm", "mdlm-repository"])
def test_saved_pipelines_and_single_files(name: str, tmp_path: Path) -> None:
    model = save(name, tmp_path / "raw")
    MaskedDiffusionPipeline.from_pretrained(tmp_path / "raw").save_pretrained(tmp_path / "pipeline")
    assert same_weights(MaskedDiffusionPipeline.from_pretrained(tmp_path / "pipeline").denoiser, model)
    assert same_weights(load_denoiser(tmp_path / "pipeline"), model)
    assert same_weights(load_denoiser(tmp_path / "raw" / "model.safetensors"), model)


def test_families_are_never_confused(tmp_path: Path) -> None:
    for name, family in {**FAMILIES, "markov": "markov"}.items():
        folder = tmp_path / name
        if name == "markov":
            countdown(4, 8).save_pretrained(folder)
        else:
            save(name, folder)
        assert [f for f in DENOISERS.names() if DENOISERS[f].recognises(Checkpoint(folder))] == [family]


def test_gpt2_tokenizer_belongs_to_its_vocabulary() -> None:
    sedd = {**SEDD_ABSORB, "tokens": 50257}
    mdlm = {**MDLM_HUB, "vocab_size": 50258}
    for name, config in (("sedd", sedd), ("mdlm", mdlm)):
        with torch.device("meta"):
            assert DENOISERS[name](config)._hub_tokenizer() == "gpt2"
        assert make(name)._hub_tokenizer() is None


def without(config: dict[str, Any], key: str) -> dict[str, Any]:
    """The config without the key `"a.b"`."""
    first, _, rest = key.partition(".")
    if rest:
        return {**config, first: without(config[first], rest)}
    return {name: value for name, value in config.items() if name != first}


@pytest.mark.parametrize(
    ("name", "key"),
    [("sedd", key) for key in ("noise", "noise.type", "graph.type", "model.scale_by_sigma", "model.cond_dim")]
    + [("sedd-uniform", key) for key in ("noise.sigma_min", "noise.sigma_max", "model.n_heads", "model.dropout")]
    + [("mdlm", key) for key in ("hidden_dim", "cond_dim", "n_heads", "model_length", "time_conditioning")]
    + [("mdlm", key) for key in ("n_blocks", "dropout", "vocab_size")]
    + [("mdlm-repository", f"config.{key}") for key in ("model.hidden_size", "model.length", "time_conditioning")],
)
def test_missing_keys_are_named(name: str, key: str, tmp_path: Path) -> None:
    save(name, tmp_path, without(CONFIGS[name], key))
    with pytest.raises(ValueError, match=f"config.json.*'{key}"):
        load_denoiser(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "culprit"),
    [
        ("sedd", {"graph": {"type": "tree"}}, "graph.type"),
        ("sedd", {"noise": {"type": "cosine"}}, "noise.type"),
        ("sedd", {"model": {**SEDD_ABSORB["model"], "n_heads": 3}}, "n_heads"),
        ("sedd-uniform", {"model": {**SEDD_UNIFORM["model"], "scale_by_sigma": True}}, "scale_by_sigma"),
        ("sedd-uniform", {"noise": {"type": "geometric", "sigma_min": 2, "sigma_max": 1}}, "sigma_min"),
        ("mdlm", {"dropout": 1.5}, "dropout"),
        ("mdlm", {"mask_token_id": 8}, "mask_token_id"),
        ("mdlm", {"time_conditioning": "no"}, "time_conditioning"),
        ("mdlm-repository", {"config": {**MDLM_REPOSITORY["config"], "parameterization": "ar"}}, "parameterization"),
        ("mdlm-repository", {"config": {**MDLM_REPOSITORY["config"], "parameterization": "sedd"}}, "time_condition"),
        ("mdlm-repository", {"config": {**MDLM_REPOSITORY["config"], "backbone": "dimamba"}}, "config.backbone"),
        ("mdlm-d3pm", {"config": {**MDLM_REPOSITORY["config"], "subs_masking": "no"}}, "config.subs_masking"),
    ],
)
def test_bad_values_are_named(name: str, change: dict[str, Any], culprit: str, tmp_path: Path) -> None:
    save(name, tmp_path, {**CONFIGS[name], **change})
    with pytest.raises(ValueError, match=f"config.json.*{culprit}"):
        load_denoiser(tmp_path)


@pytest.mark.parametrize("name", ["sedd", "mdlm", "mdlm-repository"])
@pytest.mark.parametrize("damage", ["missing", "surplus", "shape"])
def test_weights_that_do_not_fit_are_named(name: str, damage: str, tmp_path: Path) -> None:
    save(name, tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    key = next(key for key in tensors if key.endswith("blocks.1.adaLN_modulation.bias"))
    if damage == "missing":
        del tensors[key]
    else:
        key = key if damage == "shape" else key + "2"
        tensors[key] = torch.zeros(3)
    save_file(tensors, file)
    with pytest.raises(ValueError, match=f"model.safetensors.*{key}"):
        load_denoiser(tmp_path)


# ---- end to end ----


@pytest.mark.parametrize("name", MASKED)
def test_sampling_leaves_no_mask_and_keeps_what_is_given(name: str, tmp_path: Path) -> None:
    save(name, tmp_path)
    pipeline = MaskedDiffusionPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    holes = torch.tensor([[7, 1, 7, 7, 2, 7, 7, 3], [4, 7, 7, 5, 7, 7, 6, 7]])
    for M in (1, 4):
        out = pipeline([1, 2], [3], num_samples=3, num_inference_steps=M, output_type="ids").sequences
        assert out.shape == (3, 8) and not (out == 7).any()
        assert (out[:, :2] == torch.tensor([1, 2])).all() and (out[:, -1] == 3).all()
        filled = pipeline(input_ids=holes, num_inference_steps=M, output_type="ids").sequences
        assert not (filled == 7).any() and torch.equal(filled[holes != 7], holes[holes != 7])


@pytest.mark.parametrize(
    "solver", [name for name in SOLVERS.names() if name not in ("dndm_k", "p2")]
)  # which read known rows
def test_a_likely_mask_is_not_drawn(solver: str) -> None:
    """Of log-probabilities that hold the mask (d3pm) the samples are those of the law without it (subs)."""
    samples = []
    for name in ("mdlm-repository", "mdlm-d3pm"):
        torch.manual_seed(0)
        model = make(name).double()
        model.defers_head = False  # the sampler sees what `forward` says
        with torch.no_grad():
            model.output_layer.linear.bias[7] = 4.0
        pipeline = MaskedDiffusionPipeline(model, LSDScheduler(**model.scheduler_config(), solver=solver))
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(1)
        out = pipeline([1, 2], num_samples=64, num_inference_steps=3, generator=generator, output_type="ids")
        samples.append(out.sequences)
    with torch.no_grad():
        assert (model(samples[0]).exp()[..., 7] > 0.5).any()
    assert torch.equal(*samples) and not (samples[0] == 7).any()


@pytest.mark.parametrize("method", ["path_kl", "lsd"])
@pytest.mark.parametrize("name", ["sedd", "mdlm", "mdlm-time", "mdlm-scores"])
def test_distil_from_the_shell_and_sample(
    name: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "_plot", lambda *_: False)
    save(name, tmp_path / "model")
    model, sampler = ["--model", str(tmp_path / "model")], str(tmp_path / "sampler")
    argv = ["--nfe", "2", "4", "--num-sequences", "4", "--teacher-steps", "16", "--method", method]
    assert train.main([*model, *argv, "--output-dir", sampler]) == 0
    argv = ["--sampler", sampler, "--nfe", "4", "--num-samples", "2", "--output", str(tmp_path / "samples")]
    assert sample.main([*model, *argv]) == 0
    rows = [json.loads(line)["ids"] for line in (tmp_path / "samples").read_text().splitlines()]
    assert len(rows) == 2 and all(len(row) == 8 and max(row) < 7 for row in rows)
