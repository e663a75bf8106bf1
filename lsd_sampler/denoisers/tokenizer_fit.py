"""Checks that the tokenizer of a folder is that of the network: transformers takes any that it finds."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .files import TOKENIZER_NAME, read_json
from .mask_token import USUAL_MASKS


logger = logging.getLogger(__name__)

_VOCABULARY = "vocab.txt"
_CONFIG = "tokenizer_config.json"
_PADDED_TO = 128
"""Padded embeddings have a multiple of this number of rows."""
_BERT_OPTIONS = (
    "do_lower_case", "strip_accents", "tokenize_chinese_chars", "unk_token", "sep_token", "pad_token", "cls_token",
    "mask_token", "model_max_length",
)  # fmt: skip


def fitting_tokenizer(tokenizer: Any | None, folder: Path, rows: int) -> Any | None:
    """The tokenizer, if it fits a network with this number of rows of embeddings; else the one of `vocab.txt`.

    Raises:
        ValueError: if it is another's, and there is no `vocab.txt` that can be read in its place.
    """
    words = _words(folder / _VOCABULARY, rows)
    if tokenizer is None:
        instead = _of_words(folder, words) if words else None
        if instead is not None:
            logger.warning("%s: the tokenizer is read from %s.", folder, _VOCABULARY)
        return instead
    problem = _problem(tokenizer, rows, words)
    if problem is None:
        return tokenizer
    # nobody can tell which of two files that differ is the model's own
    instead = _of_words(folder, words) if words and not (folder / TOKENIZER_NAME).is_file() else None
    if instead is None or _problem(instead, rows, words):
        raise ValueError(
            f"the tokenizer in {folder}, read as {type(tokenizer).__name__}, is not that of this model: {problem} Say"
            f" which class reads its files (`tokenizer_class` in {_CONFIG}), or remove them to go on without."
        )
    logger.warning("%s: %s Taking the tokenizer of %s in its place.", folder, problem, _VOCABULARY)
    return instead


def _problem(tokenizer: Any, rows: int, words: Mapping[str, int]) -> str | None:
    """A sentence on why this cannot be the tokenizer."""
    vocabulary = tokenizer.get_vocab()
    name, number = type(tokenizer).__name__, len(vocabulary)
    mask = getattr(tokenizer, "mask_token", None)
    if mask is not None and mask in words and vocabulary.get(mask) != words[mask]:
        return f"{_VOCABULARY} has the mask {mask} at {words[mask]}, {name} at {vocabulary.get(mask)}."
    differing = sum(vocabulary.get(word) != i for word, i in words.items())
    if differing > len(words) / 10:
        return f"{differing} of {len(words)} tokens of {_VOCABULARY} have another id in {name}, or none."
    if number <= len(getattr(tokenizer, "all_special_ids", ())):
        return f"{name} has {number} tokens, all of them special, and the model {rows}."
    if number < rows / 2 and -(-number // _PADDED_TO) * _PADDED_TO < rows:
        return f"{name} has {number} tokens, and the model {rows}."
    return None


def _words(file: Path, rows: int) -> dict[str, int]:
    """The words of a `vocab.txt` that lists all tokens, one a line, the mask among them; else nothing."""
    if not file.is_file():
        return {}
    try:
        lines = file.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not a text file in UTF-8.") from error
    words = {line: i for i, line in enumerate(lines)}
    return words if len(lines) <= rows and any(mask in words for mask in USUAL_MASKS) else {}


def _of_words(folder: Path, words: Mapping[str, int]) -> Any | None:
    """The word pieces of `vocab.txt`, with the options of the tokenizer's config."""
    from transformers import BertTokenizer

    config = read_json(folder / _CONFIG) if (folder / _CONFIG).is_file() else {}
    options = {name: config[name] for name in _BERT_OPTIONS if isinstance(config.get(name), str | int)}
    # lower-cased text cannot give a cased word
    cased = any(word != word.lower() for word in words if not word.startswith("["))
    options.setdefault("do_lower_case", not cased)
    tokenizer = BertTokenizer(vocab=dict(words), **options)
    special = (tokenizer.mask_token, tokenizer.unk_token, tokenizer.cls_token, tokenizer.sep_token)
    return tokenizer if all(token in words for token in special) else None
