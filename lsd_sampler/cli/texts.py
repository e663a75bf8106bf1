"""Real sequences for the commands: texts, or token ids as `lsd-sample --output` writes them."""

import json
import lzma
from pathlib import Path
from typing import Any

import torch

from ..evaluation.harness import text_windows


TEXT_SUFFIXES = (".txt", ".txt.xz")


def read_texts(path: Path, flag: str = "path") -> list[str]:
    """A text file (.txt, or .txt.xz), or all of a folder.

    Args:
        path (`Path`): of the file or folder.
        flag (`str`): what errors call it.

    Raises:
        OSError: if there is no such file.
        ValueError: if a folder holds no text, or a file is no text in UTF-8.
    """
    return [_read_text(file, flag) for file in _files(path, flag)]


def read_windows(path: Path, tokenizer: Any, length: int, flag: str) -> torch.Tensor:
    """The texts of [`read_texts`], each in tokens and cut into windows: `torch.LongTensor` of shape `(num, length)`.

    Raises:
        OSError, ValueError: as [`read_texts`]; and if a text is shorter than one window.
    """
    windows = []
    for file in _files(path, flag):
        text = _read_text(file, flag)
        try:
            windows.append(text_windows(tokenizer, text, length))
        except ValueError as error:
            raise ValueError(f"`{flag}` {str(file)!r}: {error}") from error
    return torch.cat(windows)


def read_sequences(path: Path, pipeline: Any, length: int | None) -> torch.Tensor:
    """The sequences of `--data`, shuffled: windows of texts, or rows of ids. `torch.LongTensor` of shape `(num,
    length)`.

    Raises:
        OSError: if there is no such file.
        ValueError: if it holds no text, or the model has no tokenizer; if ids are not rows of equal length.
    """
    if path.suffix == ".jsonl":
        sequences = _read_ids(path)
    else:
        tokenizer, denoiser = getattr(pipeline, "tokenizer", None), getattr(pipeline, "denoiser", None)
        if tokenizer is None or denoiser is None:
            raise ValueError("`--data`: no tokenizer of a `--model` to cut a text into tokens: give .jsonl with ids.")
        sequences = read_windows(path, tokenizer, length or denoiser.length, "--data")
    return sequences[torch.randperm(len(sequences), generator=torch.Generator().manual_seed(0))]


def _files(path: Path, flag: str) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.name.endswith(TEXT_SUFFIXES))
    if not files:
        raise ValueError(f"`{flag}` {str(path)!r} holds no file that ends in {' or '.join(TEXT_SUFFIXES)}.")
    return files


def _read_ids(path: Path) -> torch.Tensor:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            ids = json.loads(line)["ids"]
            rows.append(torch.tensor(ids, dtype=torch.int64))
        except (ValueError, TypeError, KeyError, RecursionError, RuntimeError) as error:
            raise ValueError(f'`--data` {str(path)!r}, line {number}: must be as {{"ids": [1, 2, 3]}}.') from error
    if not rows or any(row.shape != rows[0].shape or row.ndim != 1 for row in rows):
        raise ValueError(f"`--data` {str(path)!r} must hold rows of ids, all of one length.")
    return torch.stack(rows)


def _read_text(file: Path, flag: str) -> str:
    opener: Any = lzma.open if file.suffix == ".xz" else open
    try:
        with opener(file, "rt", encoding="utf-8") as stream:
            return str(stream.read())
    except (UnicodeDecodeError, lzma.LZMAError) as error:
        raise ValueError(f"`{flag}` {str(file)!r} is not a text in UTF-8: {error}.") from error
