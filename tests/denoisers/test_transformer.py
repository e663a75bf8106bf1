"""Laws of the layers that SEDD, RADD and MDLM share."""

import pytest
import torch

from lsd_sampler.denoisers.transformer import AdaptiveBlock, LayerNorm, Rotary, TimestepEmbedder, attention, rotate


def test_products_of_rotated_vectors_depend_on_the_distance_alone() -> None:
    cos, sin = Rotary(8)(12)
    q, k = torch.randn(2, 1, 1, 1, 8).expand(-1, -1, -1, 12, -1)
    products = rotate(q, cos, sin) @ rotate(k, cos, sin).transpose(-1, -2)
    torch.testing.assert_close(products[..., 1:, 1:], products[..., :-1, :-1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(products[..., 0, 0], (q * k).sum(-1)[..., 0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(products[..., 0, 1], products[..., 0, 0], atol=1e-3)


def test_attention_to_equal_keys_is_the_mean() -> None:
    q, v = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    rotary = torch.ones(5, 2), torch.zeros(5, 2)
    out = attention(torch.cat([q, torch.ones(2, 5, 8), v], dim=-1), 2, rotary)
    torch.testing.assert_close(out, v.mean(1, keepdim=True).expand_as(v))


@pytest.mark.parametrize("bias", [True, False])
def test_norms_add_their_eps_to_the_variance(bias: bool) -> None:
    x = 3e-3 * torch.tensor([[1.0, -1.0, 2.0, -2.0]])
    norm = LayerNorm(4, bias)
    torch.testing.assert_close(norm(x), x / (x.square().mean() + 1e-5).sqrt())
    assert norm.half()(x.half()).dtype == torch.float16 and (norm.bias is not None) == bias


def test_a_closed_gate_passes_its_input_on() -> None:
    block, x = AdaptiveBlock(8, 2, 3, dropout=0.0), torch.randn(2, 5, 8)
    torch.nn.init.zeros_(block.adaLN_modulation.weight)
    torch.nn.init.zeros_(block.adaLN_modulation.bias)
    assert torch.equal(block(x, Rotary(4)(5), torch.randn(2, 3)), x)


def test_each_noise_has_an_embedding_of_its_own() -> None:
    embed = TimestepEmbedder(6)
    sigma = torch.tensor([0.0, 0.5, 3.0])
    rows = embed(sigma)
    assert rows.shape == (3, 6) and bool((torch.cdist(rows, rows) + torch.eye(3) > 1e-3).all())
    torch.testing.assert_close(embed(sigma[1:2]), rows[1:2])
