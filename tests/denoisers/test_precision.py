"""Casts that pass by what would lose its meaning."""

import pytest
import torch
from torch import nn

from lsd_sampler.denoisers.precision import KeepsBuffers, KeepsDtype


def filled(kind: type[nn.Module]) -> nn.Module:
    module = kind()
    module.weight = nn.Parameter(torch.tensor([0.1]))
    module.inner = nn.Module()
    module.inner.register_buffer("angle", torch.tensor([0.1]))
    return nn.Sequential(module)


@pytest.mark.parametrize(("kind", "keeps_weight"), [(KeepsDtype, True), (KeepsBuffers, False)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_casts_leave_values_alone(kind: type[nn.Module], keeps_weight: bool, dtype: torch.dtype) -> None:
    state = filled(kind).to(dtype).state_dict()
    assert torch.equal(state["0.inner.angle"], torch.tensor([0.1]))
    assert state["0.inner.angle"].dtype == torch.float32
    assert state["0.weight"].dtype == (torch.float32 if keeps_weight else dtype)


@pytest.mark.parametrize("kind", [KeepsDtype, KeepsBuffers])
def test_moves_move_everything(kind: type[nn.Module]) -> None:
    state = filled(kind).to("meta", torch.float16).state_dict()
    assert all(tensor.is_meta for tensor in state.values())
