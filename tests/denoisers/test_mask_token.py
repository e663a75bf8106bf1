"""The mask of a tokenizer, from its files."""

import json
from pathlib import Path
from typing import Any

import pytest

from lsd_sampler.denoisers.mask_token import mask_of_tokenizer


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[MASK]", "[SEP]", "a", "b", "c"]


@pytest.mark.parametrize("kind", ["vocab.txt", "vocab.txt alone", "objects", "added", "pairs", "special"])
def test_any_tokenizer_file_tells_the_mask(kind: str, tmp_path: Path) -> None:
    ids = {word: i for i, word in enumerate(WORDS)}
    special = [{"id": 3, "content": "[MASK]", "special": True}]
    pairs = {"model": {"vocab": [[word, 0.0] for word in WORDS]}}
    files: dict[str, Any] = {
        "vocab.txt": {"tokenizer_config.json": {"mask_token": "[MASK]"}, "vocab.txt": WORDS},
        "vocab.txt alone": {"vocab.txt": WORDS},
        "objects": {"special_tokens_map.json": {"mask_token": {"content": "[MASK]"}}, "vocab.json": ids},
        "added": {"vocab.json": {"a": 0}, "added_tokens.json": {"<mask>": 3}},
        "pairs": {"tokenizer_config.json": {"mask_token": "[MASK]"}, "tokenizer.json": pairs},
        "special": {"tokenizer.json": {"added_tokens": special, "model": {"vocab": ids}}},
    }
    for name, content in files[kind].items():
        (tmp_path / name).write_text("\n".join(content) if name == "vocab.txt" else json.dumps(content))
    assert mask_of_tokenizer(tmp_path) == 3


def test_tokenizers_without_a_mask(tmp_path: Path) -> None:
    assert mask_of_tokenizer(tmp_path) is None
    ordinary = {"added_tokens": [{"id": 3, "content": "[MASK]", "special": False}], "model": {"vocab": {"a": 0}}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(ordinary))
    assert mask_of_tokenizer(tmp_path) is None
    (tmp_path / "tokenizer.json").write_text('{"added_tokens": [3]}')
    with pytest.raises(ValueError, match="tokenizer.json"):
        mask_of_tokenizer(tmp_path)
