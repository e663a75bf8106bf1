"""Checkpoints of PyTorch Lightning: pickles, of which only tensors and plain containers are ever read."""

import pickle
import re
from pathlib import Path
from typing import Any

import torch


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
    content = _read_pickle(path)
    state = content.get("state_dict")
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds no 'state_dict': it is no Lightning checkpoint.")
    tensors = {name: value for name, value in state.items() if str(name).startswith(prefix)}
    ema = content.get("ema")
    if isinstance(ema, dict):
        tensors |= _averaged(tensors, ema.get("shadow_params"), path)
    config = content.get("hyper_parameters")
    return tensors, config if isinstance(config, dict) else {}


def _read_pickle(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        # mapped, not read: optimizer states, which nobody asks for, are most of such a file
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise ValueError(
            f"{path} holds more than tensors and plain containers ({found[1] if found else 'unknown objects'}), which"
            " is never loaded. If you trust it, convert it where its classes are installed: of `checkpoint ="
            " torch.load(path, weights_only=False)`, save checkpoint['state_dict'], its 'backbone.*' parameters"
            " replaced in order by checkpoint['ema']['shadow_params'], as model.safetensors, and the model's config"
            " as config.json beside it."
        ) from error
    except (RuntimeError, EOFError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is not a readable checkpoint (truncated or damaged?): {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no 'state_dict': it is no Lightning checkpoint.")
    return content


def _averaged(tensors: dict[str, torch.Tensor], shadow: Any, path: Path) -> dict[str, torch.Tensor]:
    """The averaged parameters by their names; a buffer, such as the rotary frequencies, is none."""
    names = [name for name in tensors if not name.endswith("inv_freq")]
    if not isinstance(shadow, list) or [x.shape for x in shadow] != [tensors[name].shape for name in names]:
        raise ValueError(f"{path}: 'ema.shadow_params' must be a list of the {len(names)} parameters, in their order.")
    return dict(zip(names, shadow, strict=True))
