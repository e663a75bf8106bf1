"""Checkpoints of PyTorch Lightning: pickles, of which only tensors and plain containers are ever read.

Beside the tensors lie the training config, an object of omegaconf, and a tokenizer. Classes of ours stand for theirs
and keep what the file gives them: neither is imported, and no code of the file runs.
"""

import pickle
import re
from pathlib import Path
from typing import Any, Self

import torch

from .files import read_pickle


# what is stood for: a config's containers, nodes and the types that it mentions, paths, tokenizers
_STOOD_FOR = re.compile(
    r"omegaconf\.(dictconfig\.DictConfig|listconfig\.ListConfig|nodes\.[A-Z]\w*Node"
    r"|base\.(Metadata|ContainerMetadata|UnionNode))"
    r"|typing\.Any|builtins\.(dict|list|tuple|set|str|bytes|int|float|bool|object|type)|collections\.defaultdict"
    r"|pathlib\.(_local\.)?(Posix|Windows|PurePosix|PureWindows)?Path"
    r"|transformers\.(models\.\w+\.)?tokeniz\w+\.[A-Z]\w*|tokenizers\.(Tokenizer|AddedToken|models\.Model)"
    r"|dataloader\.Text8Tokenizer"  # MDLM's own
)


class _StandIn:
    """An object of a class that is not imported. It has nothing but its state, if that is a dictionary."""

    state: dict[Any, Any]

    def __new__(cls, *_: Any) -> Self:  # pickles make objects by `__new__` alone, or call the class
        stand_in = super().__new__(cls)
        stand_in.state = {}
        return stand_in

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


class _PlainDict:
    """Stands for dictionaries of a special kind."""

    def __new__(cls, *_: Any) -> dict[Any, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return {}


def read_lightning(path: Path, prefix: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of one module of a Lightning checkpoint, and its hyper-parameters.

    The parameters are the averaged ones (`ema`) where the checkpoint has them: a list in the order of the parameters,
    without the buffers.

    Args:
        path (`Path`): the file.
        prefix (`str`): how the names of the module's tensors begin.

    Returns:
        the tensors by their names in the file, and its `hyper_parameters`, usually `{"config": ...}`. These hold plain
        values only: no tokenizers, interpolations (`${...}`) or missing values (`???`).

    Raises:
        OSError: if the file is missing.
        ValueError: if it is damaged, or holds objects of other classes; the message says how to convert it.
    """
    content = _read(path)
    state = content.get("state_dict")
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds no 'state_dict': it is no Lightning checkpoint.")
    tensors = {
        name: value
        for name, value in state.items()
        if isinstance(name, str) and name.startswith(prefix) and isinstance(value, torch.Tensor)
    }
    ema = content.get("ema")
    if isinstance(ema, dict):
        tensors |= _averaged(tensors, ema.get("shadow_params"), path)
    try:
        config = _plain(content.get("hyper_parameters"), {})
    except RecursionError:
        config = None
    return tensors, config if isinstance(config, dict) else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_pickle(path, _stand_ins(path))
    except ValueError as error:
        if not isinstance(error.__cause__, pickle.UnpicklingError):
            raise
        raise ValueError(
            f"{error} If you trust it, convert it with the code that wrote it: of the checkpoint that this loads, save"
            " checkpoint['state_dict'], its 'backbone.*' parameters replaced in order by"
            " checkpoint['ema']['shadow_params'], as model.safetensors, and the model's config as config.json beside"
            " it."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no 'state_dict': it is no Lightning checkpoint.")
    return content


def _stand_ins(path: Path) -> list[tuple[type, str]]:
    """A stand-in for each class of the file that may have one; none where PyTorch cannot list them (before 2.6)."""
    find = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)
    if find is None:
        return []
    try:
        names = [name for name in find(path) if _STOOD_FOR.fullmatch(name)]
    except Exception:  # a damaged file, of which whoever reads it says more
        return []
    return [(_PlainDict if name == "collections.defaultdict" else _StandIn, name) for name in sorted(names)]


def _plain(value: Any, seen: dict[int, Any]) -> Any:
    """The dictionaries, lists, texts and numbers in a value; None for all else, and for a value that holds itself.

    `seen` has the results by identity: a small file may hold the same part any number of times.
    """
    if isinstance(value, str):
        return None if "${" in value or value == "???" else value
    if isinstance(value, (int, float)):
        return value
    if not isinstance(value, (_StandIn, dict, list, tuple)):
        return None
    if id(value) not in seen:
        seen[id(value)] = None
        if isinstance(value, _StandIn):  # omegaconf's containers have a content, its nodes a value
            part = _plain(value.state.get("_content", value.state.get("_val")), seen)
        elif isinstance(value, dict):
            part = {key: _plain(x, seen) for key, x in value.items() if isinstance(key, str)}
        else:
            part = [_plain(x, seen) for x in value]
        seen[id(value)] = part
    return seen[id(value)]


def _averaged(tensors: dict[str, torch.Tensor], shadow: Any, path: Path) -> dict[str, torch.Tensor]:
    """The averaged parameters by their names; a buffer, such as the rotary frequencies, is none."""
    names = [name for name in tensors if not name.endswith("inv_freq")]
    shadow = [x for x in shadow if isinstance(x, torch.Tensor)] if isinstance(shadow, list) else []
    if [x.shape for x in shadow] != [tensors[name].shape for name in names]:
        raise ValueError(f"{path}: 'ema.shadow_params' must be a list of the {len(names)} parameters, in their order.")
    return dict(zip(names, shadow, strict=True))
