"""MDLM's Lightning checkpoints: pickles, of which tensors and a plain config are read, and no code runs."""

import json
import os
import sys
import types
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.ddit_checkpoints import CONFIGS, LOG_LINEAR, MDLM_REPOSITORY, lightning, make, same_weights
from safetensors.torch import load_file

from lsd_sampler.denoisers import MDLMDenoiser, load_denoiser
from lsd_sampler.denoisers.lightning import read_lightning


TO_TELL = {"model_type": "mdlm", "time_conditioning": True, "model_length": 8}


@pytest.mark.parametrize("where", ["shapes", "hub", "repository", "pickle"])
def test_lightning_checkpoint(where: str, tmp_path: Path) -> None:
    trained, averaged = make("mdlm-time"), make("mdlm-time")
    repository = {"config": {**MDLM_REPOSITORY["config"], "time_conditioning": True}}
    hub, file = tmp_path / "hub", tmp_path / "last.ckpt"
    content = lightning(trained, [p.data for p in averaged.parameters()])
    torch.save({**content, "hyper_parameters": repository} if where == "pickle" else content, file)
    if where != "pickle":
        config = {"shapes": TO_TELL, "hub": CONFIGS["mdlm-time"], "repository": {**MDLM_REPOSITORY, **repository}}
        (tmp_path / "config.json").write_text(json.dumps(config[where]))
    for path in (file, tmp_path):
        model = load_denoiser(path)
        assert isinstance(model, MDLMDenoiser)
        assert model.time_conditioned and model.length == 8 and same_weights(model, averaged)
    model.save_pretrained(hub)
    assert {key.split(".")[0] for key in load_file(hub / "model.safetensors")} == {"backbone"}
    flat = {key: value for key, value in CONFIGS["mdlm-time"].items() if key not in ("dropout", "untouched")}
    assert json.loads((hub / "config.json").read_text()).items() >= flat.items()
    assert same_weights(load_denoiser(hub), averaged)


def test_lightning_checkpoint_without_averages_or_with_other_noise(tmp_path: Path) -> None:
    model, file = make("mdlm"), tmp_path / "last.ckpt"
    noise = {"type": "geometric", "sigma_min": 0.01, "sigma_max": 9}
    torch.save(
        lightning(model, None, hyper_parameters={"config": {**MDLM_REPOSITORY["config"], "noise": noise}}), file
    )
    loaded = load_denoiser(file)
    assert same_weights(loaded, model) and loaded.noise_schedule == "geometric"
    loaded.save_pretrained(tmp_path / "hub")
    assert load_denoiser(tmp_path / "hub").scheduler_config()["sigma_max"] == 9


def test_lightning_checkpoints_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, file = make("mdlm"), tmp_path / "last.ckpt"
    torch.save(lightning(model, None), file)
    with pytest.raises(ValueError, match=r"last.ckpt.*'time_conditioning' and 'model_length'.*config.json"):
        load_denoiser(file)
    (tmp_path / "config.json").write_text(json.dumps(TO_TELL))
    torch.save(lightning(model, [p.data for p in model.parameters()][1:]), file)
    with pytest.raises(ValueError, match="last.ckpt.*'ema.shadow_params'"):
        load_denoiser(file)
    content = lightning(model, None)
    del content["state_dict"]["backbone.rotary_emb.inv_freq"]
    torch.save(content, file)
    with pytest.raises(ValueError, match="last.ckpt lacks.*backbone.rotary_emb.inv_freq"):
        load_denoiser(file)
    torch.save([1], file)
    with pytest.raises(ValueError, match="last.ckpt holds no 'state_dict'"):
        load_denoiser(file)
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ValueError, match="last.ckpt is damaged"):
        load_denoiser(file)
    with pytest.raises(OSError, match="other.ckpt"):
        MDLMDenoiser.from_pretrained(tmp_path, weight_name="other.ckpt")
    module = types.ModuleType("omegaconf")
    module.DictConfig = type("DictConfig", (), {"__module__": "omegaconf"})  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "omegaconf", module)
    torch.save(lightning(model, None, hyper_parameters={"config": module.DictConfig()}), file)
    with pytest.raises(ValueError, match=r"last.ckpt.*omegaconf.DictConfig.*state_dict.*shadow_params.*safetensors"):
        load_denoiser(file)


# ---- Lightning checkpoints as Lightning writes them: with a config of omegaconf ----


def foreign(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[Any]:
    """Classes by these full names, importable for now, whose objects run no code but when they are pickled."""

    def never(*_: Any) -> None:
        raise AssertionError("code of the file ran")

    classes = []
    for full_name in names:
        module, _, name = full_name.rpartition(".")
        for part in (module.split(".")[0], module):
            if part not in sys.modules:
                monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
        body = {"__module__": module, "__setstate__": never, "__init__": never, "__call__": never}
        classes.append(type(name, (), body))
        monkeypatch.setattr(sys.modules[module], name, classes[-1], raising=False)
    return classes


def as_omegaconf(value: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The objects, and their states, in which omegaconf 2.4 keeps a config."""
    containers = {dict: "dictconfig.DictConfig", list: "listconfig.ListConfig"}
    names = ["base.ContainerMetadata", "base.Metadata", "nodes.AnyNode", *containers.values()]
    classes = dict(zip(names, foreign(monkeypatch, *(f"omegaconf.{name}" for name in names)), strict=True))

    def make_object(name: str, **state: Any) -> Any:
        made = object.__new__(classes[name])
        vars(made).update(state)
        return made

    def convert(value: Any, parent: Any) -> Any:
        told = {"ref_type": Any, "object_type": type(value), "optional": True, "key": None, "flags": {"struct": True}}
        if type(value) not in containers:
            return make_object(
                "nodes.AnyNode", _metadata=make_object("base.Metadata", **told), _parent=parent, _val=value
            )
        told |= {"resolver_cache": defaultdict(dict, {"cached": {"a": 1}}), "key_type": Any, "element_type": Any}
        metadata = make_object("base.ContainerMetadata", **told)
        made = make_object(containers[type(value)], _metadata=metadata, _parent=parent)
        made._content = (
            {key: convert(x, made) for key, x in value.items()}
            if isinstance(value, dict)
            else [convert(x, made) for x in value]
        )
        return made

    return convert(value, None)


NOISE = {"type": "geometric", "sigma_min": 0.01, "sigma_max": 9}
TRAINED = {
    **MDLM_REPOSITORY["config"], "noise": NOISE, "data": {"tokenizer_name_or_path": "gpt2", "cache_dir": "???"},
    "loader": {"num_workers": "${eval:3}", "lists": [[1, None], 0.5]},
}  # fmt: skip


@pytest.mark.parametrize("tokenizer", [False, True])
def test_lightning_checkpoint_with_an_omegaconf_config(
    tokenizer: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, averaged, file = make("mdlm"), make("mdlm"), tmp_path / "last.ckpt"
    further: dict[str, Any] = {"config": as_omegaconf(TRAINED, monkeypatch)}
    if tokenizer:
        name = "transformers.models.gpt2.tokenization_gpt2_fast.GPT2TokenizerFast"
        further["tokenizer"] = object.__new__(foreign(monkeypatch, name)[0])
        vars(further["tokenizer"])["padding_side"] = "right"
    content = lightning(trained, [p.data for p in averaged.parameters()], hyper_parameters=further)
    torch.save(content, file)
    for path in (file, tmp_path):
        model = load_denoiser(path)
        assert same_weights(model, averaged) and model.mask_token_id == 7
        assert model.scheduler_config().items() >= {"noise_schedule": "geometric", "sigma_max": 9}.items()
    _, config = read_lightning(file, "backbone.")
    said = {**TRAINED, "data": {"tokenizer_name_or_path": "gpt2", "cache_dir": None}}
    said["loader"] = {"num_workers": None, "lists": [[1, None], 0.5]}
    assert config["config"] == said and config.get("tokenizer") is None
    admitted = [entry[1] for entry in torch.serialization.get_safe_globals() if isinstance(entry, tuple)]
    assert not any("omegaconf" in name for name in admitted)
    (tmp_path / "config.json").write_text(json.dumps({**MDLM_REPOSITORY, "config": {**TRAINED, "noise": LOG_LINEAR}}))
    assert load_denoiser(tmp_path).noise_schedule == "log_linear"  # what lies beside it comes first


def test_lightning_checkpoint_whose_config_says_too_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, file = make("mdlm"), tmp_path / "last.ckpt"
    further = {"config": as_omegaconf({"time_conditioning": "${cond}", "model": {"length": "???"}}, monkeypatch)}
    further["config"]._content["itself"] = further["config"]
    torch.save(lightning(model, None, hyper_parameters=further), file)
    with pytest.raises(ValueError, match=r"last.ckpt.*'time_conditioning' and 'model_length'.*config.json"):
        load_denoiser(file)
    (tmp_path / "config.json").write_text(json.dumps(TO_TELL | {"time_conditioning": False}))
    assert same_weights(load_denoiser(file), model)
    monkeypatch.delattr(torch.serialization, "get_unsafe_globals_in_checkpoint")  # as before PyTorch 2.6
    with pytest.raises(ValueError, match=r"last.ckpt.*omegaconf.dictconfig.DictConfig.*safetensors"):
        load_denoiser(file)


class Call:
    """What a pickle calls when it is read."""

    def __init__(self, function: Any, *args: Any):
        self.function, self.args = function, args

    def __reduce__(self) -> tuple:
        return self.function, self.args


@pytest.mark.parametrize(
    "name",
    [
        "omegaconf.os.system", "omegaconf.system", "omegaconf.dictconfig.system", "omegaconf.base.system",
        "omegaconf.nodes.system", "transformers.os.system", "transformers.models.gpt2.os.system",
        "tokenizers.models.system", "typing.system", "pathlib.system", "collections.system", "dataloader.system",
        "transformers.tokenization_utils.system",
        "xomegaconf.dictconfig.DictConfig", "omegaconf.dictconfig.DictConfigX", "functools.partial",
    ],
)  # fmt: skip
def test_nothing_is_called_by_a_name_that_looks_harmless(name: str, tmp_path: Path) -> None:
    """`os.system` under a name near those of configs and tokenizers: refused, by that name, and not run."""
    file = tmp_path / "last.ckpt"
    (tmp_path / "config.json").write_text(json.dumps(TO_TELL))
    call = Call(os.system, f"touch {tmp_path / 'ran'}")
    torch.save(lightning(make("mdlm"), None, hyper_parameters={"config": call}), file)
    with zipfile.ZipFile(file) as archive:
        content = {entry: archive.read(entry) for entry in archive.namelist()}
    own, new = (f"c{x.rpartition('.')[0]}\n{x.rpartition('.')[2]}\n".encode() for x in (f"{os.name}.system", name))
    with zipfile.ZipFile(file, "w") as archive:
        for entry, data in content.items():
            assert own in data or not entry.endswith("data.pkl")
            archive.writestr(entry, data.replace(own, new))
    with pytest.raises(ValueError, match=rf"last.ckpt.*{name}"):
        load_denoiser(file)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("function", [os.system, eval, getattr, __import__])
def test_nothing_is_called_in_the_place_of_a_config(
    function: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among classes that are stood for, too."""
    file = tmp_path / "last.ckpt"
    further = {"config": as_omegaconf(TRAINED, monkeypatch)}
    further["config"]._metadata.flags = Call(function, f"touch {tmp_path / 'ran'}", "x")
    torch.save(lightning(make("mdlm"), None, hyper_parameters=further), file)
    with pytest.raises(ValueError, match=r"last.ckpt is damaged, or holds more than tensors"):
        load_denoiser(file)
    assert not (tmp_path / "ran").exists()
