"""Real sequences for the commands: texts, or token ids as `lsd-sample --output` writes them."""

import json
import lzma
import sys
from pathlib import Path
from typing import Any

import torch

from ..evaluation.harness import cut_windows
from ..evaluation.tokens import encode


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


def cut_texts(path: Path, flag: str, tokenizer: Any, length: int) -> torch.Tensor:
    """Windows of the texts of a file or folder, shuffled: `torch.LongTensor` of shape `(num, length)`.

    Texts shorter than a window are left out, with a note on stderr.

    Args:
        path (`Path`), flag (`str`): as for [`read_texts`].
        tokenizer: of the model.
        length (`int`): of a window, in tokens.

    Raises:
        OSError, ValueError: as [`read_texts`]; and if no text has so many tokens.
    """
    texts = read_texts(path, flag)
    windows = [cut_windows(encode(tokenizer, [text])[0], length) for text in texts]
    num_short = sum(not len(of_text) for of_text in windows)
    if num_short == len(texts):
        raise ValueError(
            f"`{flag}` {str(path)!r} holds no text of {length} tokens: give longer ones, or a `--length`."
        )
    if num_short:
        number = f"{num_short} of {len(texts)} texts"
        print(f"`{flag}` {str(path)!r}: {number} are shorter than {length} tokens and left out.", file=sys.stderr)
    return _shuffled(torch.cat(windows))


def read_sequences(path: Path, pipeline: Any, length: int | None) -> torch.Tensor:
    """The sequences of `--data`, shuffled: windows of texts, or rows of ids. `torch.LongTensor` of shape `(num,
    length)`.

    Raises:
        OSError: if there is no such file.
        ValueError: if it holds no text that is long enough, or the model has no tokenizer; if ids are not rows of
            equal length.
    """
    if path.suffix == ".jsonl":
        return _shuffled(_read_ids(path))
    tokenizer, denoiser = getattr(pipeline, "tokenizer", None), getattr(pipeline, "denoiser", None)
    if tokenizer is None or denoiser is None:
        raise ValueError("`--data`: no tokenizer of a `--model` to cut a text into tokens: give .jsonl with ids.")
    return cut_texts(path, "--data", tokenizer, length or denoiser.length)


def _shuffled(sequences: torch.Tensor) -> torch.Tensor:
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
