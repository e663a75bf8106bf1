"""Encoder and decoder of the translation models of reparameterised discrete diffusion
(https://huggingface.co/papers/2302.05737), which DNDM samples from too.

Layers have fairseq's names. Shape suffixes: B batch, S source positions, L positions of a canvas, C width.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .piece_tokenizer import PAD


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_accurate": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_fast": lambda x: F.gelu(x, approximate="tanh"),
    "tanh": torch.tanh,
    "linear": lambda x: x,
}


def positions_of(tokens_BL: torch.Tensor) -> torch.Tensor:
    """Numbers of the positions, from 2 on; those of padding do not count, and have number 1. `(B, L)`."""
    real_BL = tokens_BL != PAD
    return real_BL.cumsum(1) * real_BL + PAD


def sinusoids(x: torch.Tensor, dim: int) -> torch.Tensor:
    """Sines, then cosines, of `x` times frequencies from 1 down to 1e-4, in float32 at least. `(..., dim)`."""
    half, wide = dim // 2, torch.promote_types(x.dtype, torch.float32)
    # in float32, as in the authors' code: large times amplify the rounding of the frequencies
    rates = torch.exp(torch.arange(half, device=x.device) * -(math.log(10_000) / (half - 1)))
    angle = x.to(wide)[..., None] * rates
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class Attention(nn.Module):
    """Attention over keys that may be of another width than the queries."""

    def __init__(self, dim: int, key_dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj, self.out_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.k_proj, self.v_proj = nn.Linear(key_dim, dim), nn.Linear(key_dim, dim)

    def forward(self, x_BLC: torch.Tensor, keys_BSC: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """`bias` is added to the scores, `(B or 1, heads or 1, L or 1, S)`."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q_proj(x_BLC), self.k_proj(keys_BSC), self.v_proj(keys_BSC))
        )
        return self.out_proj(F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """A layer of either side. `normalize_before` moves each norm from behind the sum to before the branch."""

    def __init__(self, config: Mapping[str, Any], side: str):
        super().__init__()
        dim, heads = config[f"{side}_embed_dim"], config[f"{side}_attention_heads"]
        self.normalize_before = config[f"{side}_normalize_before"]
        self.activation = ACTIVATIONS[config["activation_fn"]]
        self.self_attn, self.self_attn_layer_norm = Attention(dim, dim, heads), nn.LayerNorm(dim)
        if side == "decoder":
            self.encoder_attn = Attention(dim, config["encoder_embed_dim"], heads)
            self.encoder_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, config[f"{side}_ffn_embed_dim"])
        self.fc2 = nn.Linear(config[f"{side}_ffn_embed_dim"], dim)
        self.final_layer_norm = nn.LayerNorm(dim)

    def forward(
        self,
        x_BLC: torch.Tensor,
        bias: torch.Tensor,
        source_BSC: torch.Tensor | None = None,
        source_bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        x = self._branch(x_BLC, self.self_attn_layer_norm, lambda x: self.self_attn(x, x, bias))
        if source_BSC is not None:
            x = self._branch(x, self.encoder_attn_layer_norm, lambda x: self.encoder_attn(x, source_BSC, source_bias))
        return self._branch(x, self.final_layer_norm, lambda x: self.fc2(self.activation(self.fc1(x))))

    def _branch(
        self, x: torch.Tensor, norm: nn.LayerNorm, branch: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        return x + branch(norm(x)) if self.normalize_before else norm(x + branch(x))


class Stack(nn.Module):
    """What encoder and decoder have in common: embedding, layers, final norm.

    Args:
        config (`dict`): options of the training.
        side (`str`): `"encoder"` or `"decoder"`.
        embed_tokens (`nn.Embedding`): the embedding of tokens, which both sides may share.
        final_norm (`bool`): whether a norm follows the layers.
    """

    def __init__(self, config: Mapping[str, Any], side: str, embed_tokens: nn.Embedding, final_norm: bool):
        super().__init__()
        dim, self.side = config[f"{side}_embed_dim"], side
        self.max_positions = config["max_source_positions" if side == "encoder" else "max_target_positions"]
        self.scale = 1.0 if config["no_scale_embedding"] else math.sqrt(dim)
        self.embed_tokens = embed_tokens
        learned = config[f"{side}_learned_pos"]
        self.embed_positions = nn.Embedding(self.max_positions + PAD + 1, dim) if learned else None
        self.pe_fusion_ffn = nn.Linear(2 * dim, dim) if config[f"{side}_concat_pe"] else None
        # the decoder has this norm without using it, as in the authors' code
        self.layernorm_embedding = nn.LayerNorm(dim) if config["layernorm_embedding"] else None
        self.layers = nn.ModuleList([Layer(config, side) for _ in range(config[f"{side}_layers"])])
        self.layer_norm = nn.LayerNorm(dim) if final_norm else None
        self.relative_attention_bias = None
        if config[f"{side}_use_rpe"]:
            buckets = config[f"{side}_rpe_num_buckets"]
            self.relative_attention_bias = nn.Embedding(buckets, config[f"{side}_attention_heads"])
            # the sinusoidal table counts as this long
            self.max_distance = self.max_positions if learned else 100_000

    def embed(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        """Tokens joined with their positions, `(B, L, C)`."""
        if tokens_BL.shape[1] > self.max_positions:
            raise ValueError(
                f"The {self.side} has {self.max_positions} positions, got {tokens_BL.shape[1]} tokens (`<s>` and"
                " `</s>` included): split the text."
            )
        x = self.scale * self.embed_tokens(tokens_BL)
        number_BL = positions_of(tokens_BL)
        if self.embed_positions is not None:
            place = self.embed_positions(number_BL)
        else:
            place = sinusoids(number_BL, x.shape[-1]).to(x.dtype) * (number_BL != PAD)[..., None]
        return x + place if self.pe_fusion_ffn is None else self.pe_fusion_ffn(torch.cat([x, place], dim=-1))

    def self_bias(self, tokens_BL: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """What is added to the scores of the attention among the tokens: -inf for padding, `(B, heads or 1, L or 1,
        L)`.
        """
        padding = padding_bias(tokens_BL == PAD, dtype)
        if self.relative_attention_bias is None:
            return padding
        bucket_LL = distance_buckets(
            tokens_BL.shape[1], self.relative_attention_bias.num_embeddings, self.max_distance, tokens_BL.device
        )
        return padding + self.relative_bias(self.relative_attention_bias(bucket_LL).permute(2, 0, 1)[None])

    def relative_bias(self, bias: torch.Tensor) -> torch.Tensor:
        return bias


def padding_bias(padding_BS: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """-inf for padding, 0 elsewhere, `(B, 1, 1, S)`."""
    return torch.zeros(padding_BS.shape, dtype=dtype, device=padding_BS.device).masked_fill_(padding_BS, -torch.inf)[
        :, None, None
    ]


def distance_buckets(length: int, num_buckets: int, max_distance: int, device: torch.device) -> torch.Tensor:
    """Buckets of the distances from each position to each other, as in T5: half of them for either direction, of these
    half exact and half logarithmic. `(length, length)`.
    """
    place = torch.arange(length, device=device)
    distance = place[None] - place[:, None]
    half = num_buckets // 2
    exact = half // 2
    share = torch.log(distance.abs().float().clamp(min=1) / exact) / math.log(max_distance / exact)
    far = (exact + (share * (half - exact)).long()).clamp(max=half - 1)
    return (distance > 0) * half + torch.where(distance.abs() < exact, distance.abs(), far)


class Encoder(Stack):
    """Reads the source."""

    def __init__(self, config: Mapping[str, Any], embed_tokens: nn.Embedding):
        final_norm = config["encoder_normalize_before"] and config["encoder_final_norm"]
        super().__init__(config, "encoder", embed_tokens, final_norm)

    def forward(self, tokens_BS: torch.Tensor) -> list[torch.Tensor]:
        """The input of the layers, the output of each, and that of the final norm, if any. `(B, S, C)` each."""
        x = self.embed(tokens_BS)
        if self.layernorm_embedding is not None:
            x = self.layernorm_embedding(x)
        states = [x.masked_fill((tokens_BS == PAD)[..., None], 0)]
        bias = self.self_bias(tokens_BS, x.dtype)
        for layer in self.layers:
            states.append(layer(states[-1], bias))
        return states if self.layer_norm is None else [*states, self.layer_norm(states[-1])]

    def relative_bias(self, bias: torch.Tensor) -> torch.Tensor:
        # the authors' encoder takes the biases for a mask of what may not be seen: all that are not 0 become this
        # number, beside which little is left of the scores
        return bias.masked_fill(bias != 0, -1e8 if bias.dtype == torch.float32 else -1e4)


class TimeEmbedding(nn.Module):
    """A vector for each time of the network."""

    def __init__(self, dim: int, num_times: int, kind: str):
        super().__init__()
        self.dim, self.kind = dim, kind
        if kind == "learnable":
            self.learned_timestep_emb = nn.Embedding(num_times, dim)
        if kind != "none":
            self.output_mlp = nn.Linear(dim, dim)

    def forward(self, t_B: torch.Tensor) -> torch.Tensor | float:
        """`(B, 1, C)`; 0 where time is not read."""
        if self.kind == "none":
            return 0.0
        if self.kind == "learnable":  # the first of DNDM's times may be one above the largest of training
            feature = self.learned_timestep_emb(t_B.long().clamp(0, self.learned_timestep_emb.num_embeddings - 1))
        else:
            feature = sinusoids(t_B, self.dim).to(self.output_mlp.weight.dtype)
        return self.output_mlp(feature)[:, None]


class Decoder(Stack):
    """Predicts the clean tokens of a canvas, at the canvas's own positions."""

    def __init__(self, config: Mapping[str, Any], embed_tokens: nn.Embedding):
        final_norm = config["decoder_normalize_before"] and config["decoder_final_norm"]
        super().__init__(config, "decoder", embed_tokens, final_norm)
        dim = config["decoder_embed_dim"]
        self.output_projection = nn.Linear(dim, embed_tokens.num_embeddings, bias=False)
        if config["share_decoder_input_output_embed"] or config["share_all_embeddings"]:
            self.output_projection.weight = embed_tokens.weight
        self.embed_length = nn.Embedding(config["length_classes"], config["encoder_embed_dim"])
        self.time_pos_emb = TimeEmbedding(dim, config["num_diffusion_timesteps"], config["timestep_emb_type"])

    def forward(
        self, tokens_BL: torch.Tensor, t_B: torch.Tensor, source_BSC: torch.Tensor, padding_BS: torch.Tensor
    ) -> list[torch.Tensor]:
        """The input of the layers, the output of each, and that of the final norm, if any. `(B, L, C)` each."""
        states = [self.embed(tokens_BL) + self.time_pos_emb(t_B)]
        dtype = states[0].dtype
        bias, source_bias = self.self_bias(tokens_BL, dtype), padding_bias(padding_BS, dtype)
        for layer in self.layers:
            states.append(layer(states[-1], bias, source_BSC, source_bias))
        return states if self.layer_norm is None else [*states, self.layer_norm(states[-1])]
