"""Checkpoints of fairseq: pickles of tensors, plain containers and `argparse.Namespace`, and no other class."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..support.validation import check_number
from .files import read_pickle


SUFFIX = ".pt"
DICTIONARY = re.compile(r"dict\.(.+)\.txt")

_STAND_INS = [(argparse.Namespace, "argparse.Namespace")]
_INTEGERS = (
    "encoder_embed_dim", "encoder_ffn_embed_dim", "encoder_layers", "encoder_attention_heads", "decoder_embed_dim",
    "decoder_ffn_embed_dim", "decoder_layers", "decoder_attention_heads", "max_source_positions",
    "max_target_positions", "num_diffusion_timesteps",
)  # fmt: skip
# older files lack some of these; the values are those of the code that wrote the files
_SWITCHES = {
    "encoder_learned_pos": False, "decoder_learned_pos": False, "encoder_normalize_before": False,
    "decoder_normalize_before": False, "encoder_concat_pe": True, "decoder_concat_pe": True, "encoder_use_rpe": False,
    "decoder_use_rpe": False, "layernorm_embedding": False, "no_scale_embedding": False,
    "share_all_embeddings": True, "share_decoder_input_output_embed": False, "pred_length_offset": False,
    "no_decoder_final_norm": False, "left_pad_source": True, "continuous_sample": False, "not_topk": False,
}  # fmt: skip
_CHOICES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "diffusion_type": (None, ("reparam-absorbing", "reparam-multinomial", "absorbing", "multinomial")),
    "timestep_emb_type": ("sinusoidal", ("sinusoidal", "learnable", "none")),
    "noise_distribution": ("uniform", ("uniform", "unigram")),
    "noise_scheduler_type": ("cosine", ("cosine", "cosine_old", "linear", "sqrt")),
    "schedule": ("Beta", ("Beta", "linear_alpha", "linear_lambda", "cosine")),
    "activation_fn": ("relu", ("relu", "gelu", "gelu_accurate", "gelu_fast", "tanh", "linear")),
}
_NUMBERS = {"alpha": 3, "beta": 3}
_BUCKETS = {"encoder_rpe_num_buckets": 64, "decoder_rpe_num_buckets": 64}
# options that change the network, with the only value that is known here
_REFUSED: dict[str, Any] = {
    "no_token_positional_embeddings": False, "src_embedding_copy": False, "cross_self_attention": False,
    "adaptive_input": False, "adaptive_softmax_cutoff": None, "scale_attn": False, "scale_fc": False,
    "scale_heads": False, "scale_resids": False, "base_layers": 0,
}  # fmt: skip
_NO_WEIGHTS = re.compile(r".*\.(version|_float_tensor|zero_emb|embed_positions\.weights)|diffusion\..*")
_OLD_NORMS = {
    "encoder": ("self_attn_layer_norm", "final_layer_norm"),
    "decoder": ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"),
}


def read_fairseq(file: Path) -> dict[str, Any]:
    """The content of a checkpoint.

    Raises:
        OSError: if the file is missing.
        ValueError: if it is damaged, or holds another class than `argparse.Namespace`; the message names it.
    """
    content = read_pickle(file, _STAND_INS)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ValueError(f"{file} holds no 'model' with tensors: it is no checkpoint of fairseq.")
    return content


def training_options(content: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The options that the model was trained with: `cfg.model` and what `cfg.task` has beside it, or the older `args`.

    Raises:
        ValueError: if there are none.
    """
    sections = content.get("cfg")
    sections = sections if isinstance(sections, dict) else {}
    found = [content.get("args"), sections.get("task"), sections.get("model")]
    given = [vars(x) if isinstance(x, argparse.Namespace) else x for x in found]
    options = {str(key): value for x in given if isinstance(x, dict) for key, value in x.items()}
    if not options:
        raise ValueError(f"{file} holds neither 'cfg' nor 'args' with the options of its training.")
    return options


def network_config(options: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The part of the options that the network and its generation need, with the defaults of what older files lack.

    Raises:
        ValueError: if an option is missing, unusable or not supported; the message names the file and the option.
    """
    config = {key: options.get(key) for key in _INTEGERS}
    config |= {key: options.get(key, default) for key, default in (_SWITCHES | _BUCKETS | _NUMBERS).items()}
    config |= {key: options.get(key, default) for key, (default, _) in _CHOICES.items()}
    # which older versions of fairseq parse from a text
    config |= {key: config[key] == "True" for key in _SWITCHES if config[key] in ("True", "False")}
    check_config(config, str(file))
    for key, known in _REFUSED.items():
        if options.get(key, known) not in (known, None):
            raise ValueError(f"{file}: the option '{key}' is {options[key]!r}, and only {known!r} is supported.")
    return config


def check_config(config: Mapping[str, Any], where: str) -> None:
    """Raises `ValueError`, naming `where` and the key, unless all keys that the network needs are there and usable."""
    for key in (*_INTEGERS, *_BUCKETS):
        value = config.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{where}: '{key}' must be a positive integer, got {value!r}.")
    for key in _NUMBERS:
        check_number(f"{where}: {key}", config.get(key), low=1e-3)
    for key in _SWITCHES:
        if not isinstance(config.get(key), bool):
            raise ValueError(f"{where}: '{key}' must be true or false, got {config.get(key)!r}.")
    for key, (_, choices) in _CHOICES.items():
        if config.get(key) not in choices:
            raise ValueError(f"{where}: '{key}' must be one of {list(choices)}, got {config.get(key)!r}.")
    for side in ("encoder", "decoder"):
        dim, heads = config[f"{side}_embed_dim"], config[f"{side}_attention_heads"]
        if dim % heads or dim % 2 or dim < 4:
            raise ValueError(
                f"{where}: '{side}_embed_dim' must be an even multiple of '{side}_attention_heads' {heads}, and at"
                f" least 4, got {dim}."
            )
    if config["share_all_embeddings"] and config["encoder_embed_dim"] != config["decoder_embed_dim"]:
        raise ValueError(f"{where}: 'share_all_embeddings' needs 'encoder_embed_dim' and 'decoder_embed_dim' alike.")


def model_tensors(content: Mapping[str, Any], averaged: bool, file: Path) -> dict[str, torch.Tensor]:
    """The weights, under the present names: the averaged ones, or those of the last update.

    Raises:
        ValueError: if the averaged weights are asked for and missing.
    """
    state = content["model"]
    if averaged:
        extra = content.get("extra_state")
        state = extra.get("ema") if isinstance(extra, dict) else None
        if not isinstance(state, dict):
            raise ValueError(
                f"{file} holds no averaged weights ('extra_state.ema'), which the authors' scripts sample from. If it"
                " was trained without `--store-ema`, pass `ema=False` to take the weights of the last update."
            )
    return _present_names({str(name): x for name, x in state.items() if isinstance(x, torch.Tensor)})


def _present_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Old names of norms, joint projections of attention, and the separate output matrix, as fairseq renames them."""
    renamed = {}
    for name, tensor in tensors.items():
        if old := re.fullmatch(r"((encoder|decoder)\.layers\.\d+)\.layer_norms\.(\d)\.(\w+)", name):
            renamed[f"{old[1]}.{_OLD_NORMS[old[2]][int(old[3])]}.{old[4]}"] = tensor
        elif old := re.fullmatch(r"(.*)\.in_proj_(weight|bias)", name):
            parts = zip("qkv", tensor.chunk(3), strict=True)
            renamed |= {f"{old[1]}.{part}_proj.{old[2]}": x.contiguous() for part, x in parts}
        elif name == "decoder.embed_out":
            renamed["decoder.output_projection.weight"] = tensor
        else:
            renamed[name] = tensor
    return renamed


def network_tensors(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of the network alone: neither marks of versions nor what follows from the options."""
    return {name: x for name, x in tensors.items() if not _NO_WEIGHTS.fullmatch(name)}


def version_of(tensors: Mapping[str, torch.Tensor], side: str) -> float:
    """The version of the format of the encoder or decoder; 1 where there is none."""
    version = tensors.get(f"{side}.version")
    return 1.0 if version is None or not version.numel() else float(version.flatten()[0])


def find_dictionaries(
    folder: Path, options: Mapping[str, Any], source_lang: str | None, target_lang: str | None
) -> tuple[Path, Path]:
    """The dictionaries of source and target beside a checkpoint.

    Args:
        folder (`Path`): where `dict.LANGUAGE.txt` lie.
        options: of the training, which may name the languages.
        source_lang, target_lang (`str`, *optional*): the languages, where they are not named or named otherwise.

    Raises:
        OSError: if there are none, or one is missing.
        ValueError: if nothing tells which is which, and they differ.
    """
    found = {name[1]: path for path in sorted(folder.iterdir()) if (name := DICTIONARY.fullmatch(path.name))}
    if not found:
        raise FileNotFoundError(
            f"There are no dictionaries in {folder}: put the dict.SOURCE.txt and dict.TARGET.txt of the binarised data"
            " beside the checkpoint."
        )
    names = [source_lang or options.get("source_lang"), target_lang or options.get("target_lang")]
    if all(names):
        return folder / f"dict.{names[0]}.txt", folder / f"dict.{names[1]}.txt"
    first, *others = found.values()
    if any(other.read_bytes() != first.read_bytes() for other in others):
        raise ValueError(
            f"{folder} holds the dictionaries {', '.join(path.name for path in found.values())}, which differ, and the"
            " checkpoint does not say which is the source's: pass `source_lang` and `target_lang`."
        )
    return first, first
