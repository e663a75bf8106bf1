"""The files of a denoiser: found, fetched, read and written.

Configs are JSON (or YAML), weights are safetensors. A family whose authors published pickles reads them with
`weights_only=True`: tensors and plain containers, no code.
"""

import contextlib
import json
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..support.atomic import replacing, write_atomically
from ..support.hub import download_snapshot, is_hub_id
from ..support.lfs import check_no_pointer


CONFIG_NAME = "config.json"
PIPELINE_NAME = "model_index.json"
TOKENIZER_NAME = "tokenizer.json"
FETCHED_FILES = [
    "*config.json", "config*.yaml", PIPELINE_NAME, "*.safetensors", "*.safetensors.index.json", "*tokenizer.json",
    "*vocab.json", "*merges.txt", "*special_tokens_map.json", "*added_tokens.json", "*tokenizer.model", "*vocab.txt",
    "*spiece.model", "*sentencepiece.bpe.model", "*dict.*.txt",
]  # fmt: skip


def weights_name(variant: str | None = None) -> str:
    """Name of the weights' file, as in diffusers with the variant before the suffix."""
    return f"model.{variant}.safetensors" if variant else "model.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A denoiser on disk.

    Args:
        folder (`Path`): where its files lie.
        file (`str`, *optional*): the file of weights, where one was asked for by name.
        trust_remote_code (`bool`): whether code from the folder may run.
    """

    folder: Path
    file: str | None = None
    trust_remote_code: bool = False

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of the files in the folder."""
        return frozenset(path.name for path in self.folder.iterdir())

    @property
    def config_file(self) -> Path:
        return self.folder / CONFIG_NAME

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of `config.json`; empty where there is none.

        Raises:
            ValueError: if it does not hold a JSON object.
        """
        return read_json(self.config_file) if CONFIG_NAME in self.names else {}

    def weights_file(self, variant: str | None = None) -> Path:
        """The file of weights: the one that was asked for, else `model.safetensors`."""
        return self.folder / (self.file or weights_name(variant))

    def pickles(self, suffix: str) -> list[Path]:
        """The pickles with this suffix: the one that was asked for, or else all in the folder."""
        names = [self.file] if self.file else sorted(self.names)
        return [self.folder / name for name in names if name.endswith(suffix)]

    def weights_or_pickle(self, suffix: str, variant: str | None = None) -> Path:
        """The file of weights: the one that was asked for, else `model.safetensors`, else the only pickle.

        Raises:
            ValueError: if there are several pickles to choose from.
        """
        found = [] if self.file or weights_name(variant) in self.names else self.pickles(suffix)
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise ValueError(f"{self.folder} holds several checkpoints: choose one of {names} with `weight_name`.")
        return found[0] if found else self.weights_file(variant)


def open_checkpoint(
    name_or_path: str | os.PathLike, *, file: str | None = None, trust_remote_code: bool = False, **where: Any
) -> Checkpoint:
    """The checkpoint behind a folder, a file of weights, or a Hub id; `where` as for [`resolve_folder`].

    Raises:
        OSError: if it is missing or cannot be fetched; the message names it.
    """
    path = Path(os.path.expanduser(name_or_path))
    if path.is_file():
        return Checkpoint(path.parent, path.name, trust_remote_code)
    patterns = [*FETCHED_FILES, *([file] if file else []), *(["*.py"] if trust_remote_code else [])]
    folder = resolve_folder(name_or_path, patterns=patterns, **where)
    if file and not (folder / file).is_file():
        raise FileNotFoundError(f"There is no file {file!r} in {os.fspath(name_or_path)!r}.")
    return Checkpoint(folder, file, trust_remote_code)


def resolve_folder(
    name_or_path: str | os.PathLike,
    *,
    patterns: Sequence[str] | None = None,
    revision: str | None = None,
    subfolder: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """The local folder behind a path or a Hub id. Only configs, safetensors and tokenizer files are fetched from the
    Hub.

    Raises:
        OSError: if there is no such folder or repository, or it cannot be reached; the message names it.
        ValueError: if what was fetched is not what the Hub announced; the message names the file.
    """
    name = os.fspath(name_or_path)
    folder = Path(os.path.expanduser(name))
    if not folder.is_dir():
        if not is_hub_id(name):
            raise FileNotFoundError(f"There is no folder {name!r}, and it is not a Hub id (owner/name) either.")
        below = "".join(f"{part}/" for part in PurePosixPath(subfolder or "").parts)
        folder = download_snapshot(
            name, [below + pattern for pattern in patterns or FETCHED_FILES], revision=revision, token=token,
            cache_dir=None if cache_dir is None else os.path.expanduser(cache_dir), local_files_only=local_files_only,
            force_download=force_download,
        )  # fmt: skip
    folder = folder / (subfolder or "")
    if not folder.is_dir():
        raise FileNotFoundError(f"{name!r} has no subfolder {subfolder!r}.")
    return folder


def commit_of(folder: Path) -> str | None:
    """The commit of a folder that lies in the Hub's cache (`.../snapshots/COMMIT/...`), else None."""
    path = folder.absolute()
    return next((p.name for p in (path, *path.parents) if p.parent.name == "snapshots"), None)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        OSError: if the file is missing.
        ValueError: if it does not hold a JSON object; the message names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    check_no_pointer(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # also UnicodeDecodeError
        raise ValueError(f"{path} is not valid JSON (truncated or damaged?): {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}.")
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML mapping of plain values.

    Raises:
        OSError: if the file is missing.
        ValueError: if it does not hold one; the message names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid YAML of plain values: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a YAML mapping, got {type(content).__name__}.")
    return content


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Writes a JSON object, atomically."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads all tensors of a safetensors file.

    Raises:
        OSError: if the file is missing.
        ValueError: if it is damaged; the message names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.{_conversion(path)}")
    check_no_pointer(path)
    try:
        return load_file(path)
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a readable safetensors file (truncated or damaged?): {error}") from error


def read_companion(
    name_or_path: str | os.PathLike, file_name: str, **where: Any
) -> tuple[dict[str, torch.Tensor], Path]:
    """All tensors of a safetensors file that lies beside a model, and the file; `where` as for [`resolve_folder`].

    Raises:
        OSError: if it is missing.
        ValueError: if it is damaged; the message names it.
    """
    file = resolve_folder(name_or_path, **where) / file_name
    return read_tensors(file), file


def _conversion(path: Path) -> str:
    """Advice on how to turn the pickles in a folder into a safetensors file, if there are any. No code of theirs runs,
    and tied weights, which share memory, are copied.
    """
    pickles = sorted(p.name for p in path.parent.glob("*") if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
    if not pickles:
        return ""
    # shards, beside which there may be states of an optimizer
    names = [name for name in pickles if name.startswith("pytorch_model")] or pickles[:1]
    load = "torch.load(f, map_location='cpu', weights_only=True)"
    copies = "{k: v.clone().contiguous() for d in ds for k, v in d.get('state_dict', d).items() if torch.is_tensor(v)}"
    return (
        f" {' and '.join(names)} is a pickle, which is never loaded: convert it to safetensors. In {path.parent}, run:"
        f' python -c "import torch; from safetensors.torch import save_file; ds = [{load} for f in {names}];'
        f" save_file({copies}, '{path.name}', metadata={{'format': 'pt'}})\""
    )


def read_weights(checkpoint: Checkpoint, variant: str | None = None) -> tuple[dict[str, torch.Tensor], Path]:
    """The tensors of a checkpoint, in one safetensors file or in several with an index, and the file that errors are
    about.

    Raises:
        OSError: if a file is missing.
        ValueError: if one is damaged, or the index does not fit; the message names it.
    """
    index = checkpoint.folder / ".".join(filter(None, ("model.safetensors.index", variant, "json")))
    file = checkpoint.weights_file(variant)
    if file.is_file() or checkpoint.file or not index.is_file():
        return read_tensors(file), file
    shard_of = read_json(index).get("weight_map")
    if not isinstance(shard_of, dict) or any(Path(str(name)).name != name for name in shard_of.values()):
        raise ValueError(f"{index} must hold an object 'weight_map' of tensors' names and names of files.")
    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(set(shard_of.values())):
        tensors |= read_tensors(checkpoint.folder / shard)
    return tensors, index


def read_pickle(path: Path, stand_ins: Sequence[tuple[type, str]] = ()) -> Any:
    """Reads a file of `torch.save`, if it holds tensors and plain containers only. No code of the file ever runs.

    Args:
        path (`Path`): the file.
        stand_ins: classes of ours, each with the full name of a class of the file that it stands for.

    Raises:
        OSError: if the file is missing.
        ValueError: if it is damaged or holds anything else; the message names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    check_no_pointer(path)
    admitted = torch.serialization.safe_globals([*stand_ins]) if stand_ins else contextlib.nullcontext()
    try:
        with admitted:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged pickle fails in any way
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it holds {found[1]}." if found else str(error).strip().split("\n")[0]
        raise ValueError(
            f"{path} is damaged, or holds more than tensors and plain containers, which is never loaded: {reason}"
        ) from error


def write_tensors(tensors: Mapping[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file, atomically: the tensors may be mapped from the very file that is replaced.

    Tensors that share memory, as tied weights do, are written under each of their names.
    """
    copies: dict[str, torch.Tensor] = {}
    written: set[int] = set()
    for name, tensor in tensors.items():
        copy = tensor.detach().cpu().contiguous()
        storage = copy.untyped_storage().data_ptr()
        copies[name] = copy.clone() if storage in written else copy
        written.add(storage)
    with replacing(path) as temporary:
        save_file(copies, temporary, metadata={"format": "pt", **(metadata or {})})


def check_tensors(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], where: str) -> None:
    """Raises `ValueError`, naming `where` and the culprits, unless names and shapes agree exactly."""
    for problem, names in (("lacks", expected.keys() - found.keys()), ("has surplus", found.keys() - expected.keys())):
        if names:
            listed = ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            raise ValueError(f"{where} {problem} tensors for this model: {listed}.")
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape:
            shapes = f"{tuple(tensor.shape)}, got {tuple(found[name].shape)}"
            raise ValueError(f"{where}: {name} must have shape {shapes}.")
