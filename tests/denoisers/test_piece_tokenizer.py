"""Dictionaries of fairseq, and texts in pieces."""

from pathlib import Path

import pytest

from lsd_sampler.denoisers.piece_tokenizer import PieceTokenizer, SymbolDictionary


def tokenizer(*lines: str) -> PieceTokenizer:
    return PieceTokenizer(SymbolDictionary(lines), SymbolDictionary(lines))


def test_ids_begin_with_four_special_symbols_and_follow_the_lines() -> None:
    dictionary = SymbolDictionary(["der 9", "Ha@@ 7"])
    assert dictionary.symbols == ["<s>", "<pad>", "</s>", "<unk>", "der", "Ha@@"]
    assert dictionary.counts[4:] == [9, 7]


def test_a_line_is_split_at_its_last_blank() -> None:
    assert SymbolDictionary(["a b 3"]).ids["a b"] == 4


def test_a_symbol_that_overwrites_another_has_an_id_of_its_own() -> None:
    dictionary = SymbolDictionary(["a 1", "<unk> 5 #fairseq:overwrite", "a 2 #fairseq:overwrite"])
    assert dictionary.symbols[4:] == ["a", "<unk>", "a"]
    assert (dictionary.ids["<unk>"], dictionary.ids["a"]) == (5, 6)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a 1", "a 2"], "line 2: the symbol 'a' is there already"),
        (["<s> 1"], "line 1: the symbol '<s>' is there already"),
        (["a 1", "b"], "line 2: a line of a dictionary must be 'SYMBOL COUNT', got 'b'"),
        (["a x"], "line 1: a line of a dictionary must be 'SYMBOL COUNT'"),
    ],
)
def test_an_unusable_line_is_named(lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SymbolDictionary(lines)


def test_a_text_is_split_at_white_space_and_framed() -> None:
    assert tokenizer("der 9", "Ha@@ 7", "us 5").encode("der  Ha@@\tus xyz ") == [0, 4, 5, 6, 3, 2]


def test_an_empty_text_is_its_frame() -> None:
    assert tokenizer("a 1").encode("") == [0, 2]


@pytest.mark.parametrize(
    ("ids", "text", "pieces"),
    [
        ([0, 4, 5, 2, 1, 1], "Haus", "Ha@@ us"),
        ([0, 5, 4, 2], "us Ha", "us Ha@@"),  # a last piece goes on in nothing
        ([0, 4, 1, 5, 0, 2], "Haus", "Ha@@ us"),  # special symbols inside
        ([0, 5, 3, 2], "us <unk>", "us <unk>"),
        ([0, 6, 5, 2], "@us", "@@@ us"),  # each "@@ " goes, wherever it is
        ([0, 2], "", ""),
    ],
)
def test_texts_are_joined_as_fairseq_joins_them(ids: list[int], text: str, pieces: str) -> None:
    read = tokenizer("Ha@@ 7", "us 5", "@@@ 1")
    assert read.decode(ids) == text
    assert read.decode(ids, keep_pieces=True) == pieces


def test_dictionaries_survive_saving(tmp_path: Path) -> None:
    lines = ["a\u2028b 3", "\u00a0x 2", "a 1 #fairseq:overwrite", "a 4 #fairseq:overwrite"]
    saved = PieceTokenizer(SymbolDictionary(lines), SymbolDictionary(["b 1"]))
    saved.save_pretrained(tmp_path)
    read = PieceTokenizer.from_pretrained(tmp_path)
    assert read.source.symbols == saved.source.symbols
    assert read.target.symbols == saved.target.symbols


def test_a_missing_or_damaged_dictionary_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dict.source.txt"):
        PieceTokenizer.from_pretrained(tmp_path)
    (tmp_path / "dict.de.txt").write_bytes(b"\xff\xfe 1\n")
    with pytest.raises(ValueError, match=r"dict\.de\.txt is no text in UTF-8"):
        SymbolDictionary.read(tmp_path / "dict.de.txt")
