"""Texts have the tokens that their tokenizers give them."""

import hashlib
from pathlib import Path

import pytest
from helpers.evaluation_fakes import character_tokenizer
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lsd_sampler.cli.texts import read_texts
from lsd_sampler.denoisers import load_denoiser
from lsd_sampler.evaluation import text_windows
from lsd_sampler.evaluation.tokens import encode, load_tokenizer_file


MODELS = Path(__file__).parents[2] / "models"


QWEN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


PRE_TOKENIZERS = {
    "Qwen": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
    "SentencePiece": pre_tokenizers.Metaspace(),
    "GPT-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
}


@pytest.mark.parametrize("kind", PRE_TOKENIZERS)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_text_has_the_tokens_that_its_tokenizer_gives_it(kind: str, wrapped: bool) -> None:
    """Empty lines, indents, and spaces at the end of a line are where a tokenizer looks beyond a line."""
    text = "".join(f"The end of it.\n\n\n  Number {i}, at last \nand\n\nso on" for i in range(50))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[kind]  # pyright: ignore[reportAttributeAccessIssue]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [text], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    lines = [token for line in text.splitlines(keepends=True) for token in tokenizer.encode(line).ids]
    assert lines != whole
    tokenizer.enable_truncation(16)  # as many files of tokenizers ask for
    tokenizer.enable_padding(length=4096)
    given = PreTrainedTokenizerFast(tokenizer_object=tokenizer) if wrapped else tokenizer
    assert text_windows(given, text, 10).flatten().tolist() == whole[: len(whole) // 10 * 10]
    assert wrapped or tokenizer.truncation and tokenizer.padding  # the user's own is not changed


@pytest.mark.skipif(not (MODELS / "books-radd").exists(), reason="the models are not here")
@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("valid", "c923b84b77ccaabccc9d0944a7aea7b1dc8405b36d71a1b962309bdb857e873d"),
        ("train", "3a42be5f2388d3dc7eb0d4f6d8a52307bdeb2af1b8712f291e8e20fc71bb57db"),
    ],
)
def test_the_books_have_the_tokens_that_published_numbers_are_of(name: str, digest: str) -> None:
    """The books models learned from lines, each encoded for itself; their tokenizers say so."""
    (text,) = read_texts(MODELS / f"books-{name}.txt.xz")
    for tokenizer in (load_denoiser(MODELS / "books-radd").tokenizer, load_tokenizer_file(MODELS / "books-gpt2")):
        windows = text_windows(tokenizer, text, 128)
        assert hashlib.sha256(windows.numpy().tobytes()).hexdigest() == digest


def test_text_is_cut_into_windows_one_after_the_other() -> None:
    windows = text_windows(character_tokenizer(), "ab\ncdefgh", 4)
    assert ["".join(map(chr, window)) for window in windows.tolist()] == ["ab\nc", "defg"]
    for length, text in ((0, "ab"), (3, "ab")):
        with pytest.raises(ValueError):
            text_windows(character_tokenizer(), text, length)


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_a_tokenizer_does_not_know_is_refused(wrapped: bool) -> None:
    """One of whole words that has no token for unknown ones."""
    tokenizer = Tokenizer(models.WordLevel({"C": 0}))
    held = PreTrainedTokenizerFast(tokenizer_object=tokenizer) if wrapped else tokenizer
    with pytest.raises(ValueError, match="The tokenizer cannot encode a text .*leave out what it does not know"):
        encode(held, ["C", "P"])
