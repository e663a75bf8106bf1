"""Encoder and decoder: equal to official ones, and, with other options, to layers of torch."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.official_translation import MODELS, golden, official
from helpers.tiny_translation import save_translation
from torch import nn

from lsd_sampler import load_denoiser
from lsd_sampler.denoisers.translation_network import distance_buckets, positions_of, sinusoids


CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@torch.no_grad()
@pytest.mark.parametrize("model", MODELS)
def test_official_states_lengths_and_logits(model: str) -> None:
    expected, denoiser = golden(f"{model}."), official(model)
    states = denoiser.encoder(expected["src_tokens"])
    for i, state in enumerate(states):
        torch.testing.assert_close(state, expected[f"encoder_states.{i}"], **CLOSE)
    source = denoiser.encode(expected["src_tokens"])
    torch.testing.assert_close(source.states, expected["encoder_out"], **CLOSE)
    assert torch.equal(source.padding, expected["encoder_padding_mask"])
    torch.testing.assert_close(denoiser.length_log_probs(source), expected["length_log_probs"], **CLOSE)
    assert torch.equal(denoiser.predicted_lengths(source), expected["length"])
    embedding = denoiser.decoder.time_pos_emb(expected["time.t"])
    torch.testing.assert_close(embedding[:, 0], expected["time.embedding"], **CLOSE)
    for name in [name.removesuffix(".x_t") for name in expected if name.startswith("net.") and name.endswith(".x_t")]:
        logits = denoiser.decode(expected[f"{name}.x_t"], expected[f"{name}.t"], source)
        torch.testing.assert_close(logits, expected[f"{name}.logits"], **CLOSE)
    hidden = denoiser.decoder(expected["net.half.x_t"], expected["net.half.t"], *source)
    for i, state in enumerate(hidden):
        torch.testing.assert_close(state, expected[f"net.half.states.{i}"], **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("model", MODELS)
def test_official_logits_of_the_weights_that_are_not_averaged(model: str) -> None:
    expected, denoiser = golden(f"{model}."), official(model, ema=False)
    source = denoiser.encode(expected["src_tokens"])
    torch.testing.assert_close(source.states, expected["raw.encoder_out"], **CLOSE)
    logits = denoiser.decode(expected["net.half.x_t"], expected["net.half.t"], source)
    torch.testing.assert_close(logits, expected["raw.half.logits"], **CLOSE)


# ---- other options: the layers of torch, around the embedding by its formula ----


def torch_layer(layer: Any, options: dict[str, Any], side: str) -> nn.Module:
    kind = nn.TransformerEncoderLayer if side == "encoder" else nn.TransformerDecoderLayer
    made: Any = kind(
        options[f"{side}_embed_dim"], options["heads"], options[f"{side}_ffn_embed_dim"], dropout=0.0,
        activation=options["activation"], batch_first=True, norm_first=options["norm_first"],
    ).eval()  # fmt: skip
    pairs = [(made.self_attn, layer.self_attn), (made.norm1, layer.self_attn_layer_norm)]
    if side == "decoder":
        pairs += [(made.multihead_attn, layer.encoder_attn), (made.norm2, layer.encoder_attn_layer_norm)]
    pairs += [(made.linear1, layer.fc1), (made.linear2, layer.fc2)]
    pairs += [(made.norm2 if side == "encoder" else made.norm3, layer.final_layer_norm)]
    for mine, theirs in pairs:
        if isinstance(mine, nn.MultiheadAttention):
            projections = [theirs.q_proj, theirs.k_proj, theirs.v_proj]
            mine.in_proj_weight.data = torch.cat([p.weight for p in projections])
            mine.in_proj_bias.data = torch.cat([p.bias for p in projections])
            mine.out_proj.load_state_dict(theirs.out_proj.state_dict())
        else:
            mine.load_state_dict(theirs.state_dict())
    return made


def embedded(tokens: torch.Tensor, state: dict[str, torch.Tensor], side: str, scale: float) -> torch.Tensor:
    """Each token with the place that it has among those that are not padding, which begins at 2."""
    rows, dim = [], state[f"{side}.embed_tokens.weight"].shape[1]
    for row in tokens.tolist():
        place, vectors = 1, []
        for token in row:
            place += token != 1
            index = place if token != 1 else 1
            if f"{side}.embed_positions.weight" in state:
                where = state[f"{side}.embed_positions.weight"][index]
            else:
                rates = [math.exp(-math.log(10_000) * i / (dim // 2 - 1)) for i in range(dim // 2)]
                angles = [index * rate for rate in rates]
                where = torch.tensor([*map(math.sin, angles), *map(math.cos, angles)]) * (token != 1)
            vectors.append(torch.cat([scale * state[f"{side}.embed_tokens.weight"][token], where]))
        rows.append(torch.stack(vectors))
    return torch.stack(rows) @ state[f"{side}.pe_fusion_ffn.weight"].mT + state[f"{side}.pe_fusion_ffn.bias"]


VARIATIONS: dict[str, dict[str, Any]] = {
    "as published": {},
    "sinusoidal positions": {"encoder_learned_pos": False, "decoder_learned_pos": False},
    "norms first": {"encoder_normalize_before": True, "decoder_normalize_before": True},
    "untied": {"share_all_embeddings": False, "share_decoder_input_output_embed": False},
    "own embedding of each side": {"share_all_embeddings": False},
    "learned times": {"timestep_emb_type": "learnable"},
    "no times": {"timestep_emb_type": "none"},
    "gelu, no scale": {"activation_fn": "gelu", "no_scale_embedding": True},
    "norm of embeddings": {"layernorm_embedding": True},
}


@torch.no_grad()
@pytest.mark.parametrize("options", VARIATIONS.values(), ids=list(VARIATIONS))
def test_other_options_are_layers_of_torch(tmp_path: Path, options: dict[str, Any]) -> None:
    options = {"decoder_attention_heads": 2, **options}
    denoiser: Any = load_denoiser(save_translation(tmp_path, **options))
    state, config = denoiser.state_dict(), denoiser.config
    shapes = {
        **config, "heads": 2, "activation": "gelu" if "gelu" in config["activation_fn"] else "relu",
        "norm_first": config["encoder_normalize_before"],
    }  # fmt: skip
    scale = 1.0 if config["no_scale_embedding"] else math.sqrt(16)
    source = torch.tensor([[1, 1, 0, 4, 9, 2], [0, 5, 3, 7, 8, 2]])
    canvas, t = torch.tensor([[0, 3, 9, 1, 12, 2, 1], [0, 3, 3, 7, 3, 3, 2]]), torch.tensor([4, 19])

    x = embedded(source, state, "encoder", scale)
    if config["layernorm_embedding"]:  # the decoder has one too, unused
        x = denoiser.encoder.layernorm_embedding(x)
    x = x * (source != 1)[..., None]
    for layer in denoiser.encoder.layers:
        x = torch_layer(layer, shapes, "encoder")(x, src_key_padding_mask=source == 1)
    if shapes["norm_first"]:
        x = nn.functional.layer_norm(x, (16,), state["encoder.layer_norm.weight"], state["encoder.layer_norm.bias"])
    encoded = denoiser.encode(source)
    real = source != 1
    torch.testing.assert_close(encoded.states[real], x[real], atol=1e-4, rtol=1e-4)

    y = embedded(canvas, state, "decoder", scale)
    if config["timestep_emb_type"] == "learnable":
        feature = state["decoder.time_pos_emb.learned_timestep_emb.weight"][t]
    else:
        rates = torch.tensor([math.exp(-math.log(10_000) * i / 7) for i in range(8)])
        feature = torch.cat([(t[:, None] * rates).sin(), (t[:, None] * rates).cos()], dim=1)
    if config["timestep_emb_type"] != "none":
        mlp = "decoder.time_pos_emb.output_mlp"
        y = y + (feature @ state[f"{mlp}.weight"].mT + state[f"{mlp}.bias"])[:, None]
    for layer in denoiser.decoder.layers:
        y = torch_layer(layer, shapes, "decoder")(
            y, encoded.states, tgt_key_padding_mask=canvas == 1, memory_key_padding_mask=source == 1
        )
    if shapes["norm_first"]:
        y = nn.functional.layer_norm(y, (16,), state["decoder.layer_norm.weight"], state["decoder.layer_norm.bias"])
    real = canvas != 1
    logits = denoiser.decode(canvas, t, encoded)
    expected = y @ state["decoder.output_projection.weight"].mT
    torch.testing.assert_close(logits[real], expected[real], atol=1e-3, rtol=1e-4)


@torch.no_grad()
def test_relative_positions_add_a_bias_for_each_distance(tmp_path: Path) -> None:
    """Biases that are equal for all distances change nothing; others do."""
    options: dict[str, Any] = {"decoder_use_rpe": True, "decoder_rpe_num_buckets": 8}
    denoiser: Any = load_denoiser(save_translation(tmp_path, **options))
    source = denoiser.encode(torch.tensor([[0, 5, 6, 2]]))
    canvas, t = torch.tensor([[0, 3, 9, 12, 3, 2]]), torch.tensor([4])
    denoiser.decoder.layers[0].self_attn.q_proj.weight.data *= 0.01  # all tokens are seen
    table = denoiser.decoder.relative_attention_bias.weight
    other = denoiser.decode(canvas, t, source)
    table.data.fill_(0.0)
    plain = denoiser.decode(canvas, t, source)
    table.data.fill_(1.5)
    torch.testing.assert_close(denoiser.decode(canvas, t, source), plain, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(other, plain, atol=1e-2)


@torch.no_grad()
def test_the_encoder_takes_relative_biases_for_a_mask_as_the_official_one_does(tmp_path: Path) -> None:
    """So a token sees all tokens equally, where scores are small beside the rounding of 1e8."""
    options: dict[str, Any] = {"encoder_use_rpe": True, "encoder_rpe_num_buckets": 8, "encoder_layers": 1}
    denoiser: Any = load_denoiser(save_translation(tmp_path, **options))
    layer, bias = denoiser.encoder.layers[0], denoiser.encoder.self_bias(torch.tensor([[0, 4, 2]]), torch.float32)
    layer.self_attn.q_proj.weight.data *= 0.01
    layer.self_attn.q_proj.bias.data *= 0.01
    x = torch.randn(1, 3, 16)
    mean = layer.self_attn.out_proj(layer.self_attn.v_proj(x).mean(1, keepdim=True)).expand(1, 3, 16)
    torch.testing.assert_close(layer.self_attn(x, x, bias), mean, atol=1e-5, rtol=1e-5)


def test_distances_fall_into_buckets_as_in_t5() -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    place = torch.arange(30)
    expected = T5Attention._relative_position_bucket(
        place[None] - place[:, None], bidirectional=True, num_buckets=16, max_distance=48
    )
    assert torch.equal(distance_buckets(30, 16, 48, torch.device("cpu")), expected)


def test_padding_does_not_count_among_positions() -> None:
    tokens = torch.tensor([[1, 1, 0, 5, 2], [0, 5, 1, 6, 2]])
    assert positions_of(tokens).tolist() == [[1, 1, 2, 3, 4], [2, 3, 1, 4, 5]]


def test_sinusoids_are_sines_then_cosines() -> None:
    found = sinusoids(torch.tensor([3.0]), 4)[0]
    expected = [math.sin(3), math.sin(3e-4), math.cos(3), math.cos(3e-4)]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_too_long_a_canvas_is_refused(tmp_path: Path) -> None:
    denoiser: Any = load_denoiser(save_translation(tmp_path))
    with pytest.raises(ValueError, match="The encoder has 14 positions, got 15 tokens"):
        denoiser.encode(torch.full((1, 15), 5))
