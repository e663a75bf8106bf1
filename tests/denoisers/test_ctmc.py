"""tauLDR: the official numbers, its files, and what the scheduler is told."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.golden_files import fixture_path
from safetensors.torch import load_file

from lsd_sampler.denoisers import DENOISERS, CTMCDenoiser, load_denoiser
from lsd_sampler.denoisers.ctmc import truncated_logistic
from lsd_sampler.denoisers.files import Checkpoint
from lsd_sampler.sampling.noise import Exponential


CONFIG: dict[str, Any] = {
    "data": {"S": 9, "shape": [2, 4, 8], "root": "somewhere"},
    "model": {
        "name": "GaussianTargetRateImageX0PredEMA", "ch": 8, "num_res_blocks": 2, "num_scales": 3,
        "ch_mult": [1, 2, 1], "input_channels": 2, "scale_count_to_put_attn": 1, "data_min_max": [0, 8],
        "dropout": 0.1, "skip_rescale": True, "time_embed_dim": 6, "time_scale_factor": 1000, "fix_logistic": False,
        "rate_sigma": 6.0, "Q_sigma": 20, "time_exponential": 100.0, "time_base": 3.0, "ema_decay": 0.9999,
    },
    "distributed": False,
}  # fmt: skip


def config(**changes: Any) -> dict[str, Any]:
    """`CONFIG` with entries of its sections replaced, or left out."""
    changed = copy.deepcopy(CONFIG)
    for path, value in changes.items():
        section, key = path.split("__")
        changed[section][key] = value
        if value is None:
            del changed[section][key]
    return changed


def random_model(**changes: Any) -> CTMCDenoiser:
    model = CTMCDenoiser(config(**changes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def inputs(model: CTMCDenoiser, batch_size: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(model.vocab_size, (batch_size, model.length)), torch.rand(batch_size)


def write_training(folder: Path, model: CTMCDenoiser, distributed: bool = False, **changes: Any) -> None:
    """Writes the authors' format. The average is twice the weights; `changes` replace entries of the state."""
    state: dict[str, Any] = dict(model.state_dict())
    if distributed:
        state = {name.replace("net.", "net.module.", 1): x for name, x in state.items()}
    shadow = [2 * parameter.detach() for parameter in model.parameters()]
    state |= {"ema_decay": 0.9999, "ema_num_updates": 7, "ema_shadow_params": shadow}
    state = {name: x for name, x in (state | changes).items() if x is not None}
    torch.save({"model": state, "optimizer": {"state": {}}, "n_iter": 7}, folder / "ckpt_0000000007.pt")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))


# ---- numbers ----


@torch.no_grad()
def test_official_numbers() -> None:
    folder = fixture_path("ctmc_tauldr")
    expected = load_file(folder / "expected.safetensors")
    averaged, raw = load_denoiser(folder), load_denoiser(folder, ema=False)
    assert isinstance(averaged, CTMCDenoiser)
    x, t = expected["x"], expected["t"]
    logits = averaged(x, t)
    torch.testing.assert_close(logits, expected["ema.logits"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits.softmax(-1), expected["ema.p0t"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(raw(x, t), expected["raw.logits"], atol=1e-4, rtol=1e-4)
    network = averaged.net(x.view(3, *averaged.image_shape), t)
    torch.testing.assert_close(network, expected["ema.net_out"], atol=1e-4, rtol=1e-4)


def test_truncated_logistic_is_the_law_of_a_bin() -> None:
    """Against the difference of logistic functions in float64, where that is large enough to be exact."""
    mean = torch.tensor([-0.9, 0.0, 0.55], dtype=torch.float64)
    log_scale = torch.tensor([0.0, 1.0, 2.5], dtype=torch.float64)
    edges = torch.linspace(-1, 1, 17, dtype=torch.float64)
    mass = torch.sigmoid((edges - mean[:, None]) / (log_scale - 2).exp()[:, None]).diff()
    plain, fixed = (truncated_logistic(mean, log_scale, 16, fix) for fix in (False, True))
    assert plain.shape == (3, 16)
    probable = mass > 1e-4
    # the constant 1e-6 adds that share of the distribution function
    torch.testing.assert_close(plain[probable].exp(), mass[probable], atol=2e-6, rtol=1e-6)
    assert bool((fixed <= plain).all())
    torch.testing.assert_close(fixed[probable].exp(), mass[probable], atol=2e-6, rtol=1e-6)


@torch.no_grad()
def test_fix_logistic_is_symmetric() -> None:
    """The mirrored law has mirrored logits, in both tails."""
    mean, log_scale = torch.linspace(-0.9, 0.9, 7), torch.full((7,), -1.0)
    logits = truncated_logistic(mean, log_scale, 32, True)
    torch.testing.assert_close(logits, logits.flip(0, 1), atol=1e-4, rtol=1e-4)
    plain = truncated_logistic(mean, log_scale, 32, False)
    assert not torch.allclose(plain, plain.flip(0, 1), atol=0.1)


@torch.no_grad()
def test_rows_of_a_batch_are_independent_and_time_matters() -> None:
    model = random_model().double()
    tokens, t = inputs(model)
    together = model(tokens, t.double())
    for i in range(3):
        torch.testing.assert_close(model(tokens[i : i + 1], t[i : i + 1].double())[0], together[i])
    assert not torch.allclose(model(tokens, t.flip(0).double()), together, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_precisions(tmp_path: Path, dtype: torch.dtype) -> None:
    model = random_model()
    model.save_pretrained(tmp_path)
    other = load_denoiser(tmp_path, dtype=dtype)
    tokens, t = inputs(model)
    out, expected = other(tokens, t), model(tokens, t)
    assert out.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = 1e-3 if dtype == torch.float64 else 0.05
    torch.testing.assert_close(out.softmax(-1).float(), expected.softmax(-1), atol=tolerance, rtol=0)


@torch.no_grad()
def test_compiles_without_a_break() -> None:
    model = random_model(model__num_res_blocks=1, model__num_scales=2, model__ch_mult=[1, 2])
    tokens, t = inputs(model)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.equal(compiled(tokens, t), model(tokens, t))


def test_inputs_that_do_not_fit() -> None:
    model = random_model()
    tokens, t = inputs(model)
    with pytest.raises(ValueError, match=r"`tokens`.*\(B, 64\)"):
        model(tokens[:, 1:], t)
    for bad in (None, t[0], t[:2]):
        with pytest.raises(ValueError, match="`t`"):
            model(tokens, bad)


def test_what_the_scheduler_is_told() -> None:
    model = random_model()
    assert (model.vocab_size, model.length, model.image_shape) == (9, 64, (2, 4, 8))
    assert model.mask_token_id is None and model.time_conditioned and not model.defers_head
    assert isinstance(model.noise, Exponential)
    assert model.scheduler_config() == {
        "mask_token_id": None, "vocab_size": 9, "prediction_type": "logits", "noise_schedule": "exponential",
        "time_base": 3.0, "time_exponential": 100.0, "corruption": "gaussian", "rate_sigma": 6.0, "q_sigma": 20.0,
    }  # fmt: skip


# ---- files ----


@pytest.mark.parametrize("distributed", [False, True])
def test_training_checkpoint(tmp_path: Path, distributed: bool) -> None:
    model = random_model()
    write_training(tmp_path, model, distributed)
    averaged, raw = load_denoiser(tmp_path), load_denoiser(tmp_path / "ckpt_0000000007.pt", ema=False)
    for name, weight in model.state_dict().items():
        assert torch.equal(averaged.state_dict()[name], 2 * weight)
        assert torch.equal(raw.state_dict()[name], weight)
    for name in DENOISERS.names():
        assert DENOISERS[name].recognises(Checkpoint(tmp_path)) == (DENOISERS[name] is CTMCDenoiser)


def test_names_of_configs_and_checkpoints(tmp_path: Path) -> None:
    model = random_model()
    write_training(tmp_path, model)
    (tmp_path / "config.yaml").rename(tmp_path / "config_001.yaml")
    (tmp_path / "ckpt_0000000007.pt").rename(tmp_path / "ckpt.pt")
    assert load_denoiser(tmp_path).length == 64
    (tmp_path / "ckpt_1.pt").write_bytes((tmp_path / "ckpt.pt").read_bytes())
    with pytest.raises(ValueError, match="ckpt.pt, ckpt_1.pt.*`weight_name`"):
        load_denoiser(tmp_path)
    assert load_denoiser(tmp_path, weight_name="ckpt_1.pt").length == 64
    (tmp_path / "config_002.yaml").write_text(yaml.safe_dump(config(data__S=10)))
    assert load_denoiser(tmp_path, weight_name="ckpt.pt").vocab_size == 10
    with pytest.raises(ValueError, match="no config.yaml"):
        CTMCDenoiser.from_pretrained(fixture_path("halton_maskgit"))


@torch.no_grad()
@pytest.mark.parametrize("variant", [None, "ema"])
def test_round_trip_is_exact(tmp_path: Path, variant: str | None) -> None:
    model = random_model(model__skip_rescale=False, model__fix_logistic=True)
    model.save_pretrained(tmp_path, variant=variant)
    loaded = CTMCDenoiser.from_pretrained(tmp_path, variant=variant)
    tokens, t = inputs(model)
    assert torch.equal(model(tokens, t), loaded(tokens, t))
    assert loaded.state_dict().keys() == model.state_dict().keys()
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved == model.config and "root" not in saved["data"]


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"net.input_conv.bias": None}, "lacks.*net.input_conv.bias"),
        ({"net.extra": torch.zeros(1)}, "surplus.*net.extra"),
        ({"net.middle_modules.1.NIN_0.W": torch.zeros(8, 7)}, "NIN_0.W must have shape"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, changes: dict[str, Any], culprit: str) -> None:
    write_training(tmp_path, random_model(), **changes)
    with pytest.raises(ValueError, match=f"ckpt_0000000007.pt.*{culprit}"):
        load_denoiser(tmp_path)


def test_checkpoint_without_averages(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The raw weights, and a warning; unless the averages were asked for."""
    model = random_model()
    write_training(tmp_path, model, ema_decay=None, ema_num_updates=None, ema_shadow_params=None)
    loaded = load_denoiser(tmp_path)
    assert all(torch.equal(x, loaded.state_dict()[name]) for name, x in model.state_dict().items())
    assert "ckpt_0000000007.pt holds no averaged weights" in caplog.text
    caplog.clear()
    assert load_denoiser(tmp_path, ema=False).length == 64 and not caplog.text
    with pytest.raises(ValueError, match="ckpt_0000000007.pt.*'ema_shadow_params'.*`ema=False`"):
        load_denoiser(tmp_path, ema=True)


def test_what_counts_updates_may_be_a_tensor(tmp_path: Path) -> None:
    model = random_model()
    write_training(tmp_path, model, ema_num_updates=torch.tensor(7), ema_decay=torch.tensor(0.9999))
    averaged, raw = load_denoiser(tmp_path), load_denoiser(tmp_path, ema=False)
    for name, weight in model.state_dict().items():
        assert torch.equal(averaged.state_dict()[name], 2 * weight) and torch.equal(raw.state_dict()[name], weight)


def test_averages_that_do_not_fit_are_named(tmp_path: Path) -> None:
    model = random_model()
    shadow = [parameter.detach() for parameter in model.parameters()]
    for bad in (None, shadow[:-1], [*shadow[:-1], 3.0], [shadow[1], shadow[0], *shadow[2:]]):
        write_training(tmp_path, model, ema_shadow_params=bad)
        with pytest.raises(ValueError, match="ckpt_0000000007.pt.*'ema_shadow_params'.*`ema=False`"):
            load_denoiser(tmp_path)
        assert load_denoiser(tmp_path, ema=False).length == 64
    torch.save([1], tmp_path / "ckpt_0000000007.pt")
    with pytest.raises(ValueError, match="ckpt_0000000007.pt must hold 'model'"):
        load_denoiser(tmp_path)


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"model__ch": None}, "lacks 'model.ch'"),
        ({"model__rate_sigma": None, "model__Q_sigma": None}, "lacks 'model.rate_sigma', 'model.Q_sigma'"),
        ({"data__S": 0}, "'data.S'"),
        ({"data__shape": [2, 4, 6]}, "'data.shape'"),
        ({"data__shape": []}, "'data.shape'"),
        ({"model__ch": 3}, "'model.ch'"),
        ({"model__num_scales": 2}, "'model.num_scales'"),
        ({"model__input_channels": 3}, "'model.input_channels'"),
        ({"model__data_min_max": [8, 0]}, "'model.data_min_max'"),
        ({"model__skip_rescale": "yes"}, "'model.skip_rescale'"),
        ({"model__time_base": -1.0}, "'model.time_base'"),
        ({"model__time_exponential": 0.5}, "`time_exponential`"),
        ({"model__dropout": 1.0}, "'model.dropout'"),
    ],
)
def test_bad_config_is_named(tmp_path: Path, change: dict[str, Any], culprit: str) -> None:
    write_training(tmp_path, random_model())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config(**change)))
    with pytest.raises(ValueError, match=f"config.yaml: .*{culprit}"):
        load_denoiser(tmp_path)


@pytest.mark.parametrize("section", ["data", "model"])
def test_missing_section_is_named(tmp_path: Path, section: str) -> None:
    write_training(tmp_path, random_model())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**CONFIG, section: None}))
    with pytest.raises(ValueError, match=f"config.yaml: .*'{section}'"):
        load_denoiser(tmp_path)


def test_yaml_that_is_no_plain_mapping_is_refused(tmp_path: Path) -> None:
    write_training(tmp_path, random_model())
    for text in ("a: [", "!!python/object/apply:os.getcwd []", "- 1", "\x00"):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(ValueError, match="config.yaml .*YAML"):
            load_denoiser(tmp_path)
