"""Tokenizers from files. A damaged file is named; a tokenizer that needs a missing package is left out."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..support.lfs import check_no_pointer
from .files import TOKENIZER_NAME, read_json


logger = logging.getLogger(__name__)

_OBJECTS = (TOKENIZER_NAME, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_OTHERS = ("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")


def check_tokenizer_files(folder: Path) -> None:
    """Checks that the files of a tokenizer are what their names say; missing files are fine.

    Raises:
        ValueError: if one is a Git LFS pointer, no JSON, or no JSON object; the message names it.
    """
    for name in (*_OBJECTS, *_OTHERS):
        check_no_pointer(folder / name)
    for name in _OBJECTS:
        if (folder / name).is_file():
            read_json(folder / name)
    if (folder / "vocab.json").is_file():
        try:
            json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{folder / 'vocab.json'} is not valid JSON (truncated or damaged?): {error}") from error


def load_tokenizer(folder: Path, load: Callable[[], Any]) -> Any | None:
    """A tokenizer from the files of a folder; None, with a warning, where it needs a package that is not installed.

    Args:
        folder (`Path`): the folder of the files.
        load (`Callable`): reads them. Its `OSError`, `ValueError` and `KeyError` pass.

    Raises:
        ValueError: if a file is damaged; the message names it.
    """
    check_tokenizer_files(folder)
    try:
        return load()
    except (OSError, ValueError, KeyError):
        check_backend(folder)
        raise
    except ImportError as error:
        logger.warning("The tokenizer in %s needs a package that is not installed, going on without it: %s", folder,
                       first_line(error))  # fmt: skip
        return None
    except Exception as error:  # a damaged file fails in any way
        check_backend(folder)
        named = next((folder / name for name in _OBJECTS[1:] if (folder / name).is_file()), folder)
        raise ValueError(f"{named}: no tokenizer can be made of it: {first_line(error)}") from error


def check_backend(folder: Path) -> None:
    """Raises `ValueError`, naming the file, if there is a `tokenizer.json` that the tokenizers library cannot read."""
    from tokenizers import Tokenizer

    file = folder / TOKENIZER_NAME
    if not file.is_file():
        return
    try:
        Tokenizer.from_file(str(file))
    except Exception as error:  # the library has no class of its own for it
        raise ValueError(f"{file} is no tokenizer of the tokenizers library: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of a message that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
