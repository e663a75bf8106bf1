"""The `model_type` that a `config.json` of transformers lacks, because early versions did not write one."""

from collections.abc import Iterable

from safetensors import SafetensorError, safe_open
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from .files import Checkpoint


def missing_model_type(checkpoint: Checkpoint) -> str:
    """A sentence on what to add to a config without `model_type`, if it is a config of transformers."""
    kinds = _kinds(checkpoint)
    line = " or ".join(f'`"model_type": "{kind}"`' for kind in kinds[:3]) or '`"model_type": "..."`, such as "bert"'
    return f"If it is a model of transformers, {checkpoint.config_file} lacks its `model_type`: add the line {line}."


def _kinds(checkpoint: Checkpoint) -> list[str]:
    """The kinds that fit the class that the config names, or else the beginnings of the tensors' names."""
    named = checkpoint.config.get("architectures")
    classes = {name for name in named if isinstance(name, str)} if isinstance(named, list) else set()
    mappings = (MODEL_FOR_MASKED_LM_MAPPING_NAMES, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    known = [kind for mapping in mappings for kind, of_kind in mapping.items() if classes & {*_listed(of_kind)}]
    if known:
        return list(dict.fromkeys(known))
    prefixes = {name.partition(".")[0] for name in _tensor_names(checkpoint)}
    # of kinds with the same trunk, such as RoBERTa's, the one of that name
    return [kind for kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES if kind.replace("-", "_") in prefixes]


def _listed(names: str | Iterable[str]) -> Iterable[str]:
    return [names] if isinstance(names, str) else names


def _tensor_names(checkpoint: Checkpoint) -> list[str]:
    file = checkpoint.weights_file()
    if not file.is_file():
        return []
    try:
        with safe_open(file, framework="pt") as opened:
            return list(opened.keys())
    except SafetensorError:
        return []
