"""What tokenizers know, those of transformers and of the tokenizers library: which ids stand for which token."""

from collections.abc import Callable, Sequence
from typing import Any


def known_ids(tokenizer: Any) -> frozenset[int] | None:
    """The ids that stand for a token; None where a tokenizer cannot say."""
    vocabulary = getattr(tokenizer, "get_vocab", None)
    if not callable(vocabulary):
        return None
    words = vocabulary()
    return frozenset(words.values()) if isinstance(words, dict) and words else None


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


def unknown_share(tokenizer: Any, ids: Sequence[int]) -> str | None:
    """What there is to say about a text of which more than half are tokens that the tokenizer does not know; else
    None.
    """
    unknown = getattr(tokenizer, "unk_token_id", None)
    number = sum(i == unknown for i in ids)
    if unknown is None or number <= len(ids) / 2:
        return None
    name = token_names(tokenizer)(unknown)
    return f"{number} of {len(ids)} tokens are {name}: the tokenizer may want another case, or spaces between words."
