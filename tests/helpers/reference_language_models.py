"""LLaDA, Dream and DiffuGPT: random tensors under official names, and the textbook forward pass."""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file


V, D, FF, HEADS, LAYERS = 24, 16, 20, 4, 2

LLADA: dict[str, Any] = {
    "model_type": "llada", "architectures": ["LLaDAModelLM"], "auto_map": {"AutoModel": "modeling_llada.LLaDAModelLM"},
    "d_model": D, "n_layers": LAYERS, "n_heads": HEADS, "n_kv_heads": HEADS, "mlp_hidden_size": FF,
    "embedding_size": V, "vocab_size": V, "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "mask_token_id": 20,
    "max_sequence_length": 32, "block_type": "llama", "activation_type": "silu", "layer_norm_type": "rms",
    "weight_tying": False, "include_bias": False, "include_qkv_bias": False, "attention_layer_norm": False,
    "block_group_size": 1, "scale_logits": False, "rope_full_precision": True, "eos_token_id": 18, "pad_token_id": 18,
}  # fmt: skip
DREAM: dict[str, Any] = {
    "model_type": "Dream", "architectures": ["DreamModel"], "auto_map": {"AutoModel": "modeling_dream.DreamModel"},
    "hidden_size": D, "intermediate_size": FF, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "num_key_value_heads": 2, "vocab_size": V, "rope_theta": 1000000.0, "rms_norm_eps": 1e-6, "mask_token_id": 20,
    "max_position_embeddings": 131072, "bos_token_id": 17, "pad_token_id": 17, "use_sliding_window": False,
}  # fmt: skip
GPT2: dict[str, Any] = {
    "model_type": "gpt2", "n_embd": D, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 12, "vocab_size": V,
    "bos_token_id": 17, "eos_token_id": 17, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
}  # fmt: skip

Tensors = dict[str, torch.Tensor]


def weight(*shape: int) -> torch.Tensor:
    return torch.randn(*shape) / shape[-1] ** 0.5


def norm(x: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * scale


def rotate(x: torch.Tensor, theta: float) -> torch.Tensor:
    d = x.shape[-1]
    angle = torch.outer(torch.arange(x.shape[-2]).float(), theta ** (-torch.arange(0, d, 2).float() / d))
    a, b = x[..., : d // 2], x[..., d // 2 :]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], dim=-1)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Every position to every other. `(batch, heads, length, d)`."""
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v


def split(x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(-1, (-1, D // HEADS)).transpose(1, 2)


def merge(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).flatten(-2)


def llada_tensors(tied: bool = False) -> Tensors:
    p = "model.transformer."
    tensors = {f"{p}wte.weight": weight(V, D), f"{p}ln_f.weight": torch.rand(D) + 0.5}
    tensors |= {} if tied else {f"{p}ff_out.weight": weight(V, D)}
    for i in range(LAYERS):
        b = f"{p}blocks.{i}."
        tensors |= {f"{b}{name}.weight": weight(D, D) for name in ("q_proj", "k_proj", "v_proj", "attn_out")}
        tensors |= {f"{b}{name}.weight": weight(FF, D) for name in ("ff_proj", "up_proj")}
        tensors |= {f"{b}ff_out.weight": weight(D, FF)}
        tensors |= {f"{b}{name}.weight": torch.rand(D) + 0.5 for name in ("attn_norm", "ff_norm")}
    return tensors


def llada_logits(w: Tensors, tokens: torch.Tensor) -> torch.Tensor:
    p = "model.transformer."
    x = w[f"{p}wte.weight"][tokens]
    for i in range(LAYERS):
        b = f"{p}blocks.{i}."
        h = norm(x, w[f"{b}attn_norm.weight"], 1e-5)
        q, k, v = (split(h @ w[f"{b}{name}_proj.weight"].T) for name in "qkv")
        x = x + merge(attend(rotate(q, 5e5), rotate(k, 5e5), v)) @ w[f"{b}attn_out.weight"].T
        h = norm(x, w[f"{b}ff_norm.weight"], 1e-5)
        gated = F.silu(h @ w[f"{b}ff_proj.weight"].T) * (h @ w[f"{b}up_proj.weight"].T)
        x = x + gated @ w[f"{b}ff_out.weight"].T
    head = w.get(f"{p}ff_out.weight", w[f"{p}wte.weight"])
    return norm(x, w[f"{p}ln_f.weight"], 1e-5) @ head.T


def dream_tensors() -> Tensors:
    kv = D // 2
    tensors = {"model.embed_tokens.weight": weight(V, D), "lm_head.weight": weight(V, D)}
    tensors |= {"model.norm.weight": torch.rand(D) + 0.5}
    for i in range(LAYERS):
        b, shapes = f"model.layers.{i}.", {"q": D, "k": kv, "v": kv}
        tensors |= {f"{b}self_attn.{name}_proj.weight": weight(n, D) for name, n in shapes.items()}
        tensors |= {f"{b}self_attn.{name}_proj.bias": weight(n) for name, n in shapes.items()}
        tensors |= {f"{b}self_attn.o_proj.weight": weight(D, D)}
        tensors |= {f"{b}mlp.{name}_proj.weight": weight(FF, D) for name in ("gate", "up")}
        tensors |= {f"{b}mlp.down_proj.weight": weight(D, FF)}
        tensors |= {f"{b}{name}_layernorm.weight": torch.rand(D) + 0.5 for name in ("input", "post_attention")}
    return tensors


def dream_logits(w: Tensors, tokens: torch.Tensor) -> torch.Tensor:
    x = w["model.embed_tokens.weight"][tokens]
    for i in range(LAYERS):
        b = f"model.layers.{i}."
        h = norm(x, w[f"{b}input_layernorm.weight"], 1e-6)
        q, k, v = (split(h @ w[f"{b}self_attn.{n}_proj.weight"].T + w[f"{b}self_attn.{n}_proj.bias"]) for n in "qkv")
        k, v = k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1)
        x = x + merge(attend(rotate(q, 1e6), rotate(k, 1e6), v)) @ w[f"{b}self_attn.o_proj.weight"].T
        h = norm(x, w[f"{b}post_attention_layernorm.weight"], 1e-6)
        gated = F.silu(h @ w[f"{b}mlp.gate_proj.weight"].T) * (h @ w[f"{b}mlp.up_proj.weight"].T)
        x = x + gated @ w[f"{b}mlp.down_proj.weight"].T
    return norm(x, w["model.norm.weight"], 1e-6) @ w["lm_head.weight"].T


def diffugpt_tensors(rows: int = V) -> Tensors:
    p = "denoise_model."
    tensors = {"embed_tokens.weight": weight(rows, D), f"{p}wpe.weight": weight(12, D)}
    for i in range(LAYERS):
        linear = {"attn.c_attn": (D, 3 * D), "attn.c_proj": (D, D), "mlp.c_fc": (D, 4 * D), "mlp.c_proj": (4 * D, D)}
        tensors |= {f"{p}h.{i}.{name}.weight": weight(b, a).T.contiguous() for name, (a, b) in linear.items()}
        tensors |= {f"{p}h.{i}.{name}.bias": weight(b) for name, (_, b) in linear.items()}
        tensors |= {f"{p}h.{i}.ln_{j}.{part}": torch.rand(D) for j in (1, 2) for part in ("weight", "bias")}
    return tensors | {f"{p}ln_f.{part}": torch.rand(D) for part in ("weight", "bias")}


def diffugpt_logits(w: Tensors, tokens: torch.Tensor) -> torch.Tensor:
    """The head is the embedding."""
    p = "denoise_model."
    x = w["embed_tokens.weight"][tokens] + w[f"{p}wpe.weight"][: tokens.shape[1]]

    def layer_norm(name: str) -> torch.Tensor:
        return F.layer_norm(x, (D,), w[f"{p}{name}.weight"], w[f"{p}{name}.bias"], 1e-5)

    def linear(h: torch.Tensor, name: str) -> torch.Tensor:
        return h @ w[f"{p}{name}.weight"] + w[f"{p}{name}.bias"]

    for i in range(LAYERS):
        q, k, v = map(split, linear(layer_norm(f"h.{i}.ln_1"), f"h.{i}.attn.c_attn").chunk(3, dim=-1))
        x = x + linear(merge(attend(q, k, v)), f"h.{i}.attn.c_proj")
        h = F.gelu(linear(layer_norm(f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc"), approximate="tanh")
        x = x + linear(h, f"h.{i}.mlp.c_proj")
    return layer_norm("ln_f") @ w["embed_tokens.weight"].T


def save(folder: Path, config: dict[str, Any], tensors: Tensors) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder
