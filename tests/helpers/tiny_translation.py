"""Tiny translation models with random weights, in the files that fairseq writes."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


WORDS = ("ein", "ha@@", "us", "ist", "gro@@", "ss", "the", "ho@@", "use", "is", "big", ".", "old", "tree", "a", "by")
OPTIONS: dict[str, Any] = {
    "diffusion_type": "reparam-absorbing", "num_diffusion_timesteps": 20, "timestep_emb_type": "sinusoidal",
    "noise_distribution": "uniform", "noise_scheduler_type": "cosine", "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 24, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_learned_pos": True,
    "encoder_normalize_before": False, "decoder_embed_dim": 16, "decoder_ffn_embed_dim": 20, "decoder_layers": 1,
    "decoder_attention_heads": 4, "decoder_learned_pos": True, "decoder_normalize_before": False,
    "share_all_embeddings": True, "share_decoder_input_output_embed": True, "max_source_positions": 14,
    "max_target_positions": 13, "activation_fn": "relu", "source_lang": "de", "target_lang": "en",
}  # fmt: skip


def state_dict(options: dict[str, Any], source_size: int, target_size: int) -> dict[str, torch.Tensor]:
    """Random tensors under fairseq's names."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.4

    tensors: dict[str, torch.Tensor] = {}

    def linear(name: str, size_in: int, size_out: int) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = random(size_out, size_in), random(size_out)

    def norm(name: str, size: int) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = 1 + random(size), random(size)

    for side, size in (("encoder", source_size), ("decoder", target_size)):
        dim, ffn = options[f"{side}_embed_dim"], options[f"{side}_ffn_embed_dim"]
        tensors[f"{side}.version"] = torch.tensor([3.0])
        tensors[f"{side}.embed_tokens.weight"] = random(size, dim)
        if options[f"{side}_learned_pos"]:
            longest = options["max_source_positions" if side == "encoder" else "max_target_positions"]
            tensors[f"{side}.embed_positions.weight"] = random(longest + 2, dim)
        else:
            tensors[f"{side}.embed_positions._float_tensor"] = torch.zeros(1)
        for i in range(options[f"{side}_layers"]):
            attentions = [("self_attn", dim)]
            attentions += [("encoder_attn", options["encoder_embed_dim"])] if side == "decoder" else []
            for name, key_dim in attentions:
                for part, size_in in (("k", key_dim), ("v", key_dim), ("q", dim), ("out", dim)):
                    linear(f"{side}.layers.{i}.{name}.{part}_proj", size_in, dim)
                norm(f"{side}.layers.{i}.{name}_layer_norm", dim)
            linear(f"{side}.layers.{i}.fc1", dim, ffn)
            linear(f"{side}.layers.{i}.fc2", ffn, dim)
            norm(f"{side}.layers.{i}.final_layer_norm", dim)
        linear(f"{side}.pe_fusion_ffn", 2 * dim, dim)
        if options[f"{side}_normalize_before"]:
            norm(f"{side}.layer_norm", dim)
        if options.get("layernorm_embedding"):
            norm(f"{side}.layernorm_embedding", dim)
        if options.get(f"{side}_use_rpe"):
            buckets, heads = options.get(f"{side}_rpe_num_buckets", 64), options[f"{side}_attention_heads"]
            tensors[f"{side}.relative_attention_bias.weight"] = random(buckets, heads)
    dim = options["decoder_embed_dim"]
    tensors["decoder.embed_length.weight"] = random(256, options["encoder_embed_dim"])
    tensors["decoder.embed_length.weight"][12:] *= 1e-3  # short texts
    if options["timestep_emb_type"] == "learnable":
        tensors["decoder.time_pos_emb.learned_timestep_emb.weight"] = random(options["num_diffusion_timesteps"], dim)
    if options["timestep_emb_type"] == "none":
        tensors["decoder.time_pos_emb.zero_emb"] = torch.zeros(1, 1, 1)
    else:
        linear("decoder.time_pos_emb.output_mlp", dim, dim)
    if options["share_all_embeddings"]:
        tensors["decoder.embed_tokens.weight"] = tensors["encoder.embed_tokens.weight"]
    tied = options["share_all_embeddings"] or options["share_decoder_input_output_embed"]
    own = tensors["decoder.embed_tokens.weight"] if tied else random(target_size, dim)
    tensors["decoder.output_projection.weight"] = own
    if options["diffusion_type"] == "reparam-multinomial":
        weight = torch.ones(target_size)
        weight[:3] = 1e-30
        tensors["diffusion.vocab_log_prob"] = (weight.log() / 1.5).log_softmax(-1)
        tensors["diffusion.log_alpha"] = torch.zeros(options["num_diffusion_timesteps"])
    return tensors


def checkpoint(options: dict[str, Any], source_size: int, target_size: int) -> dict[str, Any]:
    """What fairseq's trainer pickles. The averaged weights are twice those of the last update."""
    tensors = state_dict(options, source_size, target_size)
    averaged = {name: x if name.endswith("version") or name.startswith("diffusion") else 2 * x
                for name, x in tensors.items()}  # fmt: skip
    return {
        "args": None,
        "cfg": {"_name": None, "model": Namespace(**options), "task": {"_name": "diffusion_translation"}},
        "model": tensors,
        "extra_state": {"ema": averaged, "val_loss": 1.0},
        "optimizer_history": [],
    }


def write_dictionary(file: Path, words: Sequence[str]) -> None:
    file.write_text("".join(f"{word} {100 - i}\n" for i, word in enumerate(words)), encoding="utf-8")


def save_translation(
    folder: Path, source_words: Sequence[str] = WORDS, target_words: Sequence[str] = WORDS, **options: Any
) -> Path:
    """Writes a checkpoint and its dictionaries; returns the file. Options with the value None are left out."""
    options = {name: value for name, value in (OPTIONS | options).items() if value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    write_dictionary(folder / "dict.de.txt", source_words)
    write_dictionary(folder / "dict.en.txt", target_words)
    torch.save(checkpoint(options, len(source_words) + 4, len(target_words) + 4), folder / "checkpoint_best.pt")
    return folder / "checkpoint_best.pt"
