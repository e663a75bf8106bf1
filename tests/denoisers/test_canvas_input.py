"""Texts and ids, as canvases."""

from typing import Any

import pytest
from helpers.tiny_answerers import MASK, tiny_answerer

from lsd_sampler.denoisers.canvas_input import CanvasInput, positive_integer


@pytest.fixture(scope="module")
def reader() -> CanvasInput:
    pipe = tiny_answerer("llada")
    return CanvasInput(pipe.denoiser, pipe.tokenizer)


@pytest.mark.parametrize(
    ("given", "canvas"),
    [
        ({"prefix": "a", "suffix": [6, 7], "length": 5}, [[5, MASK, MASK, 6, 7]]),
        ({"prefix": ["a", "b b"], "length": 3}, [[5, MASK, MASK], [6, 6, MASK]]),
        ({"input_ids": [5, MASK]}, [[5, MASK]]),
        ({"input_ids": [[5, MASK], [MASK, 6]], "length": 2}, [[5, MASK], [MASK, 6]]),
    ],
)
def test_canvases(reader: CanvasInput, given: dict[str, Any], canvas: list[list[int]]) -> None:
    empty: dict[str, Any] = {"prefix": None, "suffix": None, "input_ids": None, "length": None}
    assert reader.canvas(**(empty | given)).tolist() == canvas


def test_ids_of_a_text(reader: CanvasInput) -> None:
    assert reader.encode("prefix", "a c").tolist() == [5, 7]
    assert reader.encode("prefix", None).tolist() == reader.encode("prefix", "").tolist() == []
    with pytest.raises(ValueError, match="`here` must be tokens without the mask"):
        reader.encode("here", [MASK])


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "1", None])
def test_positive_integers(value: Any) -> None:
    assert positive_integer("here", 3) == 3
    with pytest.raises(ValueError, match="`here` must be a positive integer"):
        positive_integer("here", value)
