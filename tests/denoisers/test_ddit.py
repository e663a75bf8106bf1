"""SEDD, MDLM and RADD: what holds of every prediction."""

from pathlib import Path

import pytest
import torch
from helpers.ddit_checkpoints import CONFIGS, MASKED, canvas, make

from lsd_sampler import LSDScheduler
from lsd_sampler.denoisers import load_denoiser
from lsd_sampler.denoisers.ddit import DDiTDenoiser


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


@pytest.mark.parametrize("name", ["sedd", "sedd-uniform", "mdlm-scores"])
@torch.no_grad()
def test_the_present_token_has_log_score_zero(name: str) -> None:
    model = make(name)
    tokens = canvas(model)
    scores = model(tokens, torch.tensor([1.0, 0.5, 0.01]))
    assert torch.equal(scores.gather(-1, tokens[..., None]), torch.zeros(3, 8, 1))
    assert (scores != 0).sum() == scores.numel() - tokens.numel()


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
