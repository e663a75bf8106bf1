"""The mask of a tokenizer, read from its files without the class that they are for."""

from pathlib import Path
from typing import Any

from .files import TOKENIZER_NAME, read_json


USUAL_MASKS = ("[MASK]", "<mask>")
_CONFIGS = ("tokenizer_config.json", "special_tokens_map.json")


def mask_of_tokenizer(folder: Path) -> int | None:
    """Id of the mask of the tokenizer in a folder; None where there is no tokenizer, or it has no mask.

    Where none of `tokenizer_config.json` and `special_tokens_map.json` names the mask, it is a special token `[MASK]`
    or `<mask>`.

    Raises:
        ValueError: if a file is damaged; the message names it.
    """
    configs = [read_json(folder / name) for name in _CONFIGS if (folder / name).is_file()]
    said = [config["mask_token"] for config in configs if "mask_token" in config]
    vocabulary, special = _vocabulary(folder)
    if said:
        mask_token_id = vocabulary.get(next((_content(token) for token in said if token is not None), None))
    else:
        mask_token_id = next((special[name] for name in USUAL_MASKS if name in special), None)
    return mask_token_id if isinstance(mask_token_id, int) else None


def _vocabulary(folder: Path) -> tuple[dict[Any, int], dict[str, int]]:
    """Ids of all tokens, and of those that may be special."""
    if (folder / TOKENIZER_NAME).is_file():
        return _backend_vocabulary(folder / TOKENIZER_NAME)
    vocabulary: dict[Any, int] = {}
    special: dict[str, int] = {}
    if (folder / "vocab.json").is_file():
        vocabulary |= read_json(folder / "vocab.json")
    if (folder / "vocab.txt").is_file():
        special |= {word: i for i, word in enumerate((folder / "vocab.txt").read_text("utf-8-sig").split("\n"))}
    if (folder / "added_tokens.json").is_file():
        special |= read_json(folder / "added_tokens.json")
    return vocabulary | special, special


def _backend_vocabulary(file: Path) -> tuple[dict[Any, int], dict[str, int]]:
    content = read_json(file)
    added, words = content.get("added_tokens") or [], (content.get("model") or {}).get("vocab") or {}
    try:
        special = {token["content"]: token["id"] for token in added if token["special"]}
        vocabulary = {token["content"]: token["id"] for token in added}
        if isinstance(words, list):  # of pairs, in Unigram models
            words = {word: i for i, (word, _) in enumerate(words)}
        return words | vocabulary, special
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{file} is no tokenizer of the tokenizers library.") from error


def _content(token: Any) -> Any:
    """The text of a token that is written as such, or as an object."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None
