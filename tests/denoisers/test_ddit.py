"""SEDD and MDLM: the official numbers, and what holds of every prediction."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.ddit_checkpoints import CONFIGS, MASKED, make
from helpers.golden_files import fixture_path
from safetensors.torch import load_file

from lsd_sampler import LSDScheduler
from lsd_sampler.denoisers import Denoiser, MDLMDenoiser, SEDDDenoiser, load_denoiser
from lsd_sampler.denoisers.ddit import DDiTDenoiser


MDLM_FIXTURES = ("mdlm", "mdlm_timecond", "mdlm_hf", "mdlm_hf_timecond")
CLOSE = {"atol": 2e-5, "rtol": 2e-5}


def canvas(model: Denoiser, batch_size: int = 3) -> torch.Tensor:
    """Random ids, with and without masks; the first row is masked throughout."""
    tokens = torch.randint(model.vocab_size + (model.mask_token_id is not None), (batch_size, model.length))
    if model.mask_token_id is not None:
        tokens[0] = model.mask_token_id
    return tokens


def time_of(model: Denoiser, sigma: torch.Tensor) -> torch.Tensor:
    return model.noise.inverse_alpha(torch.exp(-sigma.double()))


def activations(model: DDiTDenoiser, tokens: torch.Tensor, sigma: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the time embedding and the blocks give."""
    seen: dict[str, torch.Tensor] = {}
    parts = {"sigma_map": model.sigma_map, **{f"block_{i}": block for i, block in enumerate(model.blocks)}}
    hooks = [
        part.register_forward_hook(lambda _m, _x, out, name=name: seen.update({f"act.{name}": out}))
        for name, part in parts.items()
    ]
    model.logits(tokens, sigma)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("name", ["sedd_absorb", "sedd_uniform"])
@torch.no_grad()
def test_official_numbers_of_sedd(name: str) -> None:
    model, expected = load_denoiser(fixture_path(name)), load_file(fixture_path(name, "expected.safetensors"))
    assert isinstance(model, SEDDDenoiser)
    tokens, sigma = expected["input_ids"], expected["sigma"]
    for prefix in ("", "short."):
        out = model.log_score(expected[f"{prefix}input_ids"], expected[f"{prefix}sigma"])
        torch.testing.assert_close(out, expected[f"{prefix}log_score"], **CLOSE)
    torch.testing.assert_close(model(tokens, time_of(model, sigma)), expected["log_score"], **CLOSE)
    torch.testing.assert_close(model.log_score(tokens, sigma).exp(), expected["score"], rtol=1e-4, atol=0)
    seen = activations(model, tokens, sigma)
    assert seen.keys() == {key for key in expected if key.startswith("act.")}
    for key, value in seen.items():
        torch.testing.assert_close(value, expected[key], **CLOSE)


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


@pytest.mark.parametrize("name", CONFIGS)
def test_attributes_fit_the_scheduler(name: str) -> None:
    model = make(name)
    assert (model.vocab_size, model.length) == (7, 8)
    uniform, scores = name == "sedd-uniform", name in ("sedd", "sedd-uniform", "mdlm-scores")
    assert (model.mask_token_id, model.corruption) == ((None, "uniform") if uniform else (7, "absorbing"))
    assert model.prediction_type == ("log_score" if scores else "logits")
    assert model.time_conditioned == (scores or name == "mdlm-time")
    assert model.defers_head != uniform
    scheduler = LSDScheduler(**model.scheduler_config())
    assert scheduler.config.noise_schedule == ("geometric" if uniform else "log_linear")
    assert scheduler.config.prediction_type == model.prediction_type


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


@pytest.mark.parametrize("name", ["sedd", "sedd-uniform", "mdlm-scores"])
@torch.no_grad()
def test_the_present_token_has_log_score_zero(name: str) -> None:
    model = make(name)
    tokens = canvas(model)
    scores = model(tokens, torch.tensor([1.0, 0.5, 0.01]))
    assert torch.equal(scores.gather(-1, tokens[..., None]), torch.zeros(3, 8, 1))
    assert (scores != 0).sum() == scores.numel() - tokens.numel()


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


@pytest.mark.parametrize("name", MASKED)
@torch.no_grad()
def test_logits_on_demand_are_the_rows_of_forward(name: str) -> None:
    model = make(name).double()
    tokens, t = canvas(model), torch.tensor([1.0, 0.3, 0.01])
    full = model(tokens, t)
    hidden = model(tokens, t, return_hidden_states=True)
    deferred = model.deferred_logits(hidden, t)
    assert deferred.shape == full.shape and torch.equal(hidden, model.hidden_states(tokens, t))
    row, position = (tokens == model.mask_token_id).nonzero(as_tuple=True)
    rows, expected = deferred.rows(row, position)[:, :-1], full[row, position][:, :-1]
    if model.prediction_type == "logits":  # up to a constant for each row
        rows, expected = rows.log_softmax(-1), expected.log_softmax(-1)
    torch.testing.assert_close(rows, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CONFIGS)
def test_output_is_the_same_with_and_without_gradients(name: str) -> None:
    model = make(name)
    tokens, t = canvas(model), torch.rand(3)
    out = model(tokens, t)
    out[0, :, 0].sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with torch.no_grad():
        torch.testing.assert_close(model(tokens, t), out)


@pytest.mark.parametrize("name", ["sedd", "mdlm", "mdlm-time", "radd"])
@torch.no_grad()
def test_compiles_without_graph_breaks(name: str) -> None:
    model = make(name)
    tokens, t = canvas(model), torch.rand(3)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(tokens, t), model(tokens, t))
    torch.compiler.reset()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_half_precision(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    full = make(name)
    full.save_pretrained(tmp_path)
    half = load_denoiser(tmp_path, dtype=dtype)
    tokens, t = canvas(full), torch.tensor([1.0, 0.4, 1e-3])
    out, expected = half(tokens, t), full(tokens, t)
    assert out.dtype == half.dtype == dtype
    possible = expected > -1e5
    torch.testing.assert_close(out.float()[possible], expected[possible], atol=0.1, rtol=0.02)
    assert (out[~possible] < -6e4).all()


@pytest.mark.parametrize("name", ["sedd", "mdlm-time"])
@torch.no_grad()
def test_times_may_come_in_any_shape(name: str) -> None:
    model = make(name)
    tokens = torch.full((3, 8), model.mask_token_id)
    expected = model(tokens, torch.full((3,), 0.5))
    for t in (torch.tensor(0.5), torch.tensor([0.5]), torch.full((3, 1), 0.5), torch.full((3,), 0.5).double()):
        torch.testing.assert_close(model(tokens, t), expected)
    rows = model(tokens, torch.tensor([0.5, 0.1, 0.9]))
    assert torch.equal(rows[:1], expected[:1]) and not torch.allclose(rows[2], expected[2])
    with pytest.raises(ValueError, match="`t` must be given"):
        model(tokens)
    with pytest.raises(ValueError, match=r"`t`.*\(3,\), got \(2,\)"):
        model(tokens, torch.rand(2))
    assert isinstance(model, DDiTDenoiser)
    with pytest.raises(ValueError, match="`sigma` must be given"):
        model.logits(tokens)


@torch.no_grad()
def test_a_time_free_model_ignores_the_time() -> None:
    model = make("mdlm")
    tokens = canvas(model)
    assert torch.equal(model(tokens), model(tokens, torch.rand(3)))


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_the_default_device_does_not_matter(name: str, tmp_path: Path) -> None:
    model = make(name)
    model.save_pretrained(tmp_path)
    tokens, t = canvas(model), torch.rand(3)
    with torch.device("meta"):
        out = load_denoiser(tmp_path)(tokens, t)
    assert torch.equal(out, model(tokens, t))


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_rows_of_a_batch_and_its_length_are_independent(name: str) -> None:
    model = make(name).double()
    tokens, t = canvas(model), torch.rand(3)
    torch.testing.assert_close(model(tokens[1:2, :5], t[1:2]), model(tokens[:, :5], t)[1:2])
