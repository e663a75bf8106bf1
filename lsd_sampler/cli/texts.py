"""Real sequences for the commands: texts, or token ids as `lsd-sample --output` writes them."""

import json
import lzma
import sys
from pathlib import Path
from typing import Any

import torch

from ..denoisers.vocabulary import unknown_share
from ..evaluation.tokens import cut_windows, encode


LINES_SUFFIXES = (".smi", ".smi.xz")
"""Suffixes of a file of molecules: one a line, with an optional name after white space."""
TEXT_SUFFIXES = (".txt", ".txt.xz", *LINES_SUFFIXES)


def read_texts(path: Path, flag: str = "path", by_lines: bool = False) -> list[str]:
    """The text of a file (.txt or .txt.xz), or of all files of a folder. In files of molecules (.smi or .smi.xz), and
    with `by_lines`, each line is a text.

    Args:
        path (`Path`): the file or folder.
        flag (`str`): its name in errors.
        by_lines (`bool`): whether files hold one text a line; empty lines are left out.

    Raises:
        OSError: if there is no such file.
        ValueError: if a folder holds no text, or a file is no text in UTF-8.
    """
    return [text for file in _files(path, flag) for text in _texts_of(file, flag, by_lines)]


def cut_texts(path: Path, flag: str, tokenizer: Any, length: int, by_lines: bool = False) -> torch.Tensor:
    """Windows of the texts of a file or folder, shuffled: `torch.LongTensor` of shape `(num, length)`.

    Texts shorter than a window are left out, with a note on stderr. Another note tells if most tokens are unknown.

    Args:
        path (`Path`), flag (`str`), by_lines (`bool`): as for [`read_texts`].
        tokenizer: the model's tokenizer.
        length (`int`): tokens of a window.

    Raises:
        OSError, ValueError: as [`read_texts`]; and if every text is shorter than a window.
    """
    texts = read_texts(path, flag, by_lines)
    encoded = encode(tokenizer, texts)
    windows = [cut_windows(ids, length) for ids in encoded]
    num_short = sum(not len(of_text) for of_text in windows)
    if num_short == len(texts):
        sizes = sorted(map(len, encoded))
        found = f"they have {sizes[0]} to {sizes[-1]}, half of them {sizes[len(sizes) // 2]} or more" if sizes else ""
        found = f" ({found})" if len(sizes) > 1 else ""
        raise ValueError(
            f"`{flag}` {str(path)!r} holds no text of {length} tokens{found}: give longer ones, or a `--length`."
        )
    if num_short:
        number = f"{num_short} of {len(texts)} texts"
        print(f"`{flag}` {str(path)!r}: {number} are shorter than {length} tokens and left out.", file=sys.stderr)
    sequences = torch.cat(windows)
    if said := unknown_share(tokenizer, sequences.flatten()):
        print(f"`{flag}` {str(path)!r}: {said}", file=sys.stderr)
    return shuffled(sequences)


def read_sequences(path: Path, pipeline: Any, length: int | None, by_lines: bool = False) -> torch.Tensor:
    """The sequences of `--data`, shuffled: windows of texts, or rows of ids. `torch.LongTensor` of shape `(num,
    length)`.

    Raises:
        OSError: if there is no such file.
        ValueError: if it holds no text that is long enough, the model has no tokenizer, or ids are not rows of equal
            length.
    """
    if path.suffix == ".jsonl":
        return shuffled(_read_ids(path))
    tokenizer, denoiser = getattr(pipeline, "tokenizer", None), getattr(pipeline, "denoiser", None)
    if tokenizer is None or denoiser is None:
        raise ValueError("`--data`: no tokenizer of a `--model` to cut a text into tokens: give .jsonl with ids.")
    return cut_texts(path, "--data", tokenizer, length or denoiser.length, by_lines)


def read_lines(path: Path, flag: str) -> list[tuple[int, str]]:
    """The lines of a file that are not empty, with their numbers. Nothing but a newline ends a line.

    Raises:
        OSError: if there is no such file.
        ValueError: if it is no text in UTF-8.
    """
    lines = _read_text(path, flag).split("\n")
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def shuffled(sequences: torch.Tensor) -> torch.Tensor:
    """The rows in an order that depends on their number alone."""
    return sequences[_permutation(len(sequences))]


def shuffled_texts(texts: list[str]) -> list[str]:
    """The texts in an order that depends on their number alone."""
    return [texts[i] for i in _permutation(len(texts)).tolist()]


def _permutation(num: int) -> torch.Tensor:
    return torch.randperm(num, generator=torch.Generator().manual_seed(0))


def _files(path: Path, flag: str) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.name.endswith(TEXT_SUFFIXES))
    if not files:
        raise ValueError(f"`{flag}` {str(path)!r} holds no file that ends in {' or '.join(TEXT_SUFFIXES)}.")
    return files


def _texts_of(file: Path, flag: str, by_lines: bool) -> list[str]:
    if file.name.endswith(LINES_SUFFIXES):
        return [line.split()[0] for _, line in read_lines(file, flag)]
    return [line for _, line in read_lines(file, flag)] if by_lines else [_read_text(file, flag)]


def _read_ids(path: Path) -> torch.Tensor:
    rows = []
    for number, line in read_lines(path, "--data"):
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
        with opener(file, "rt", encoding="utf-8-sig") as stream:
            return str(stream.read())
    except (UnicodeDecodeError, lzma.LZMAError) as error:
        raise ValueError(f"`{flag}` {str(file)!r} is not a text in UTF-8: {error}.") from error
