"""Which ids stand for a token, and which texts for tokens."""

import logging
from pathlib import Path

import pytest
import torch
from helpers.tiny_language_models import MASKED_LMS
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from lsd_sampler import MaskedDiffusionPipeline
from lsd_sampler.denoisers.vocabulary import ids_without_token, token_names, unknown_share


@pytest.mark.parametrize("argument", ["prefix", "suffix"])
def test_texts_that_are_mostly_unknown_are_told(
    tmp_path: Path, argument: str, caplog: pytest.LogCaptureFixture
) -> None:
    MASKED_LMS["bert"](tmp_path)
    pipe = MaskedDiffusionPipeline.from_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    with caplog.at_level(logging.WARNING):
        pipe(**{argument: "the cat sat UNHEARD"}, length=8, num_inference_steps=1)  # pyright: ignore[reportArgumentType]
        assert not caplog.records
        pipe(**{argument: "THE CAT sat ON"}, length=8, num_inference_steps=1)  # pyright: ignore[reportArgumentType]
    (record,) = caplog.records
    assert f"`{argument}`" in record.getMessage() and "3 of 4" in record.getMessage()


def test_ids_of_gaps_and_of_padding_stand_for_no_token() -> None:
    words = Tokenizer(WordLevel({"a": 0, "b": 1, "d": 3}, unk_token="a"))
    assert ids_without_token(words, 6) == [2, 4, 5]
    assert [token_names(words)(i) for i in range(5)] == ["a", "b", None, "d", None]
    assert ids_without_token(None, 6) == [] and token_names(None)(0) is None


def test_half_of_a_text_may_be_unknown() -> None:
    class Words:
        unk_token_id = 1

        def convert_ids_to_tokens(self, i: int) -> str:
            return ["a", "[UNK]"][i]

    assert unknown_share(Words(), [0, 1, 0, 1]) is None
    for ids in ([0, 1, 1], torch.tensor([0, 1, 1])):
        assert (unknown_share(Words(), ids) or "").startswith("2 of 3 tokens are [UNK]")
    assert unknown_share(None, [1, 1]) is None
