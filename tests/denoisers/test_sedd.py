"""SEDD: the official numbers."""

import pytest
import torch
from helpers.ddit_checkpoints import activations, time_of
from helpers.golden_files import fixture_path
from safetensors.torch import load_file

from lsd_sampler.denoisers import SEDDDenoiser, load_denoiser


CLOSE = {"atol": 2e-5, "rtol": 2e-5}


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
