"""Which ids stand for which token, in tokenizers of transformers and of the tokenizers library."""

from collections.abc import Callable, Sequence
from typing import Any

import torch


def ids_without_token(tokenizer: Any | None, num_ids: int) -> list[int]:
    """The ids for which the tokenizer has no token (padded embeddings have some); none where it cannot say."""
    vocabulary = getattr(tokenizer, "get_vocab", None)
    words = vocabulary() if callable(vocabulary) else None
    known = {*words.values()} if isinstance(words, dict) and words else range(num_ids)
    return [i for i in range(num_ids) if i not in known]


def token_names(tokenizer: Any) -> Callable[[int], str | None]:
    """From an id to its token; to None where there is none, or no tokenizer."""
    name = getattr(tokenizer, "convert_ids_to_tokens", None) or getattr(tokenizer, "id_to_token", None)

    def token_of(i: int) -> str | None:
        if name is None:
            return None
        try:
            token = name(i)
        except (IndexError, KeyError, OverflowError):  # of an id without one
            return None
        return token if isinstance(token, str) else None

    return token_of


def unknown_share(tokenizer: Any, ids: Sequence[int] | torch.Tensor) -> str | None:
    """A sentence about a text if more than half of its tokens are unknown to the tokenizer; else None."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    number = 0 if unknown is None else int((torch.as_tensor(ids) == unknown).sum())
    if unknown is None or number <= len(ids) / 2:
        return None
    name = token_names(tokenizer)(unknown)
    return f"{number} of {len(ids)} tokens are {name}: the tokenizer may want another case, or spaces between words."
