"""Checkpoints of PyTorch Lightning: pickles, of which only tensors and plain containers are ever read."""

import pickle
from pathlib import Path
from typing import Any

import torch

from .files import read_pickle


def read_lightning(path: Path, prefix: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of one module of a Lightning checkpoint, and its hyper-parameters.

    The parameters are the averaged ones (`ema`) where the checkpoint has them: a list in the order of the parameters,
    without the buffers.

    Args:
        path (`Path`): the file.
        prefix (`str`): what the names of the module's tensors begin with.

    Returns:
        the tensors by their names in the file, and `{"config": ...}` or whatever else its `hyper_parameters` are.

    Raises:
        OSError: if the file is missing.
        ValueError: if it is damaged, or holds objects of other classes; the message says how to convert it.
    """
    content = _read(path)
    state = content.get("state_dict")
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds no 'state_dict': it is no Lightning checkpoint.")
    tensors = {name: value for name, value in state.items() if str(name).startswith(prefix)}
    ema = content.get("ema")
    if isinstance(ema, dict):
        tensors |= _averaged(tensors, ema.get("shadow_params"), path)
    config = content.get("hyper_parameters")
    return tensors, config if isinstance(config, dict) else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_pickle(path)
    except ValueError as error:
        if not isinstance(error.__cause__, pickle.UnpicklingError):
            raise
        raise ValueError(
            f"{error} If you trust it, convert it where its classes are installed: of `checkpoint = torch.load(path,"
            " weights_only=False)`, save checkpoint['state_dict'], its 'backbone.*' parameters replaced in order by"
            " checkpoint['ema']['shadow_params'], as model.safetensors, and the model's config as config.json beside"
            " it."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no 'state_dict': it is no Lightning checkpoint.")
    return content


def _averaged(tensors: dict[str, torch.Tensor], shadow: Any, path: Path) -> dict[str, torch.Tensor]:
    """The averaged parameters by their names; a buffer, such as the rotary frequencies, is none."""
    names = [name for name in tensors if not name.endswith("inv_freq")]
    if not isinstance(shadow, list) or [x.shape for x in shadow] != [tensors[name].shape for name in names]:
        raise ValueError(f"{path}: 'ema.shadow_params' must be a list of the {len(names)} parameters, in their order.")
    return dict(zip(names, shadow, strict=True))
