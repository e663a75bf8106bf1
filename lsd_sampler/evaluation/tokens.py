"""Texts and their tokens: one view of the two kinds of tokenizer that pipelines carry, `tokenizers.Tokenizer` and
transformers' own.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..sampling.left_out import LEFT_OUT
from .ngrams import LEFT_OUT_CHARACTER


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, all of it, with no special tokens added.

    Raises:
        ValueError: if a text holds what the tokenizer does not know, and it has no token for such.
    """
    if not texts:  # transformers' tokenizers fail on an empty list
        return []
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "encode_batch_fast"):
        return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    if backend.truncation or backend.padding:
        backend = _without_limits(backend)
    try:
        return [e.ids for e in backend.encode_batch_fast(list(texts), add_special_tokens=False)]
    except Exception as error:  # of no narrower class
        raise ValueError(f"The tokenizer cannot encode a text ({error}): leave out what it does not know.") from error


def decode(tokenizer: Any, sequences: torch.Tensor) -> list[str]:
    """Texts of `sequences` (`torch.LongTensor` of shape `(num_samples, length)`). No token is skipped or tidied up.

    `LEFT_OUT` becomes `LEFT_OUT_CHARACTER`, and is dropped at the end of a sequence.
    """
    if not bool((sequences == LEFT_OUT).any()):
        return _decode(tokenizer, sequences.tolist())
    parts = [_parts(row) for row in sequences.tolist()]
    texts = iter(_decode(tokenizer, [part for of_row in parts for part in of_row]))
    joined = [LEFT_OUT_CHARACTER.join(next(texts) for _ in of_row) for of_row in parts]
    return [text.rstrip(LEFT_OUT_CHARACTER) for text in joined]


def text_windows(tokenizer: Any, text: str, length: int) -> torch.Tensor:
    """`text` in tokens, cut into windows of `length` one after the other; `torch.LongTensor` of shape `(num_windows,
    length)`.

    The text is encoded as a whole, because a tokenizer may join a line break to the text before or after it.

    Raises:
        ValueError: if `length` is below 1 or `text` is shorter than one window.
    """
    if length < 1:
        raise ValueError(f"`length` must be at least 1, got {length}.")
    (ids,) = encode(tokenizer, [text])
    if len(ids) < length:
        raise ValueError(f"`text` must hold at least {length} tokens, got {len(ids)}.")
    return cut_windows(ids, length)


def cut_windows(ids: Sequence[int], length: int) -> torch.Tensor:
    """`ids` in windows of `length`, without the rest: `torch.LongTensor` of shape `(len(ids) // length, length)`."""
    return torch.tensor(ids[: len(ids) // length * length], dtype=torch.long).view(-1, length)


def present(row: torch.Tensor) -> torch.Tensor:
    """The tokens of a sequence without `LEFT_OUT`."""
    return row[row != LEFT_OUT]


def _parts(row: Sequence[int]) -> list[list[int]]:
    """What lies between `LEFT_OUT`s."""
    parts: list[list[int]] = [[]]
    for i in row:
        if i != LEFT_OUT:
            parts[-1].append(i)
        elif parts[-1]:
            parts.append([])
    return parts


def _decode(tokenizer: Any, ids: list[list[int]]) -> list[str]:
    if hasattr(tokenizer, "encode_batch"):
        return tokenizer.decode_batch(ids, skip_special_tokens=False)
    return tokenizer.batch_decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def load_tokenizer_file(folder: str | Path) -> Any | None:
    """The `tokenizers.Tokenizer` of `folder/tokenizer.json`, or None where there is no such file."""
    from tokenizers import Tokenizer

    path = Path(os.path.expanduser(folder)) / "tokenizer.json"
    if not path.is_file():
        return None
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def same_token_ids(first: Any, second: Any) -> bool:
    """Whether two tokenizers give every id the same meaning and cut texts the same way."""
    parts = [_identity(tokenizer) for tokenizer in (first, second)]
    return None not in parts and parts[0] == parts[1]


def _without_limits(backend: Any) -> Any:
    """A copy that neither cuts nor pads."""
    copy = type(backend).from_str(backend.to_str())
    copy.no_padding()
    copy.no_truncation()
    return copy


def _identity(tokenizer: Any) -> dict[str, Any] | None:
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "to_str"):
        return None
    content = json.loads(backend.to_str())
    # Padding, truncation and post-processing (BOS, EOS) change with use and do not change what an id stands for.
    return {key: content.get(key) for key in ("model", "normalizer", "pre_tokenizer", "decoder")}
