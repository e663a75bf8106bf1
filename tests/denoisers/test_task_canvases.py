"""Prompts, texts with masks and ids become canvases that the pipeline takes, or are refused by item."""

from typing import Any

import pytest
import torch
from helpers.tiny_language_models import BERT_TOKENS, MASKED_LMS

from lsd_sampler import MaskedDiffusionPipeline
from lsd_sampler.denoisers.task_canvases import task_canvases


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> MaskedDiffusionPipeline:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bert")
    MASKED_LMS["bert"](folder)
    return MaskedDiffusionPipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def chain() -> MaskedDiffusionPipeline:
    return MaskedDiffusionPipeline.from_pretrained("countdown:V=4,L=6")


def ids_of(words: str) -> list[int]:
    return [BERT_TOKENS.index(word) for word in words.split()]


def test_prompts_leave_room_for_the_answer_and_texts_keep_their_length(bert: MaskedDiffusionPipeline) -> None:
    items: list[dict[str, Any]] = [
        {"prompt": "the cat"}, {"canvas": "the [MASK] sat"}, {"canvas": [*ids_of("the cat"), None, -1]},
    ]  # fmt: skip
    mask = ids_of("[MASK]")
    expected = [ids_of("the cat") + 3 * mask, ids_of("the [MASK] sat"), ids_of("the cat") + 2 * mask]
    assert [canvas.tolist() for canvas in task_canvases(items, bert, 5)] == expected
    assert len(task_canvases(items[:1], bert)[0]) == bert.denoiser.length


def test_ids_do_without_a_tokenizer(chain: MaskedDiffusionPipeline) -> None:
    assert task_canvases([{"canvas": [3, None, 1, -1, 4]}], chain)[0].tolist() == [3, 4, 1, 4, 4]


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ({"prompt": "a"}, "no tokenizer"), ({"canvas": "a [MASK]"}, "no tokenizer"),
        ({"canvas": [1, 2]}, "nothing to fill in"), ({"canvas": [None] * 7}, "must be at most 6"),
        ({"canvas": [9, None]}, "`input_ids`"),
    ],
)  # fmt: skip
def test_an_item_that_the_model_cannot_fill_in_is_named(
    item: dict[str, Any], says: str, chain: MaskedDiffusionPipeline
) -> None:
    with pytest.raises(ValueError, match="`--tasks`, item 1: ") as raised:
        task_canvases([{"canvas": [None]}, item], chain)
    assert says in str(raised.value)


def test_a_prompt_that_fills_the_canvas_is_refused(bert: MaskedDiffusionPipeline) -> None:
    with pytest.raises(ValueError, match="item 0: its prompt has 3 tokens, which leaves no room .* in 3"):
        task_canvases([{"prompt": "the cat sat"}], bert, 3)
