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
    lightning,
    make,
    same_weights,
)
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.cards import sampler_card as cards
from lsd_sampler.cli import sample, train
from lsd_sampler.denoisers import DENOISERS, SHORT_NAMES, Denoiser, MDLMDenoiser, countdown, load_denoiser
from lsd_sampler.denoisers.files import Checkpoint
from lsd_sampler.denoisers.mask_token import mask_of_tokenizer
from lsd_sampler.sampling.solvers import SOLVERS


FAMILIES = {name: name.split("-")[0] for name in CONFIGS}


def save(name: str, folder: Path, config: dict[str, Any] | None = None) -> Denoiser:
    """Saves a model with random weights, and another config over its own."""
    model = make(name)
    model.save_pretrained(folder)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return model


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


def test_short_names_of_these_families() -> None:
    assert {SHORT_NAMES[name].family for name in ("sedd-small", "sedd-medium")} == {"sedd"}
    assert {SHORT_NAMES[name].family for name in ("mdlm", "mdlm-no-flashattn")} == {"mdlm"}


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


# ---- the mask of MDLM ----


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


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[MASK]", "[SEP]", "a", "b", "c"]


@pytest.mark.parametrize("kind", ["vocab.txt", "vocab.txt alone", "objects", "added", "pairs", "special"])
def test_any_tokenizer_file_tells_the_mask(kind: str, tmp_path: Path) -> None:
    ids = {word: i for i, word in enumerate(WORDS)}
    special = [{"id": 3, "content": "[MASK]", "special": True}]
    pairs = {"model": {"vocab": [[word, 0.0] for word in WORDS]}}
    files: dict[str, Any] = {
        "vocab.txt": {"tokenizer_config.json": {"mask_token": "[MASK]"}, "vocab.txt": WORDS},
        "vocab.txt alone": {"vocab.txt": WORDS},
        "objects": {"special_tokens_map.json": {"mask_token": {"content": "[MASK]"}}, "vocab.json": ids},
        "added": {"vocab.json": {"a": 0}, "added_tokens.json": {"<mask>": 3}},
        "pairs": {"tokenizer_config.json": {"mask_token": "[MASK]"}, "tokenizer.json": pairs},
        "special": {"tokenizer.json": {"added_tokens": special, "model": {"vocab": ids}}},
    }
    for name, content in files[kind].items():
        (tmp_path / name).write_text("\n".join(content) if name == "vocab.txt" else json.dumps(content))
    assert mask_of_tokenizer(tmp_path) == 3


def test_mask_of_a_tokenizer_without_a_config_of_its_own(tmp_path: Path) -> None:
    save("mdlm", tmp_path)
    write_tokenizer(tmp_path, None)
    (tmp_path / "tokenizer_config.json").unlink()
    assert load_denoiser(tmp_path).mask_token_id == 3
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    assert load_denoiser(tmp_path).mask_token_id == 3


def test_tokenizers_without_a_mask(tmp_path: Path) -> None:
    assert mask_of_tokenizer(tmp_path) is None
    ordinary = {"added_tokens": [{"id": 3, "content": "[MASK]", "special": False}], "model": {"vocab": {"a": 0}}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(ordinary))
    assert mask_of_tokenizer(tmp_path) is None
    (tmp_path / "tokenizer.json").write_text('{"added_tokens": [3]}')
    with pytest.raises(ValueError, match="tokenizer.json"):
        mask_of_tokenizer(tmp_path)


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


@pytest.mark.parametrize("solver", [name for name in SOLVERS.names() if name != "dndm_k"])  # it reads known rows
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
