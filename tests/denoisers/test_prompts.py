"""Prompts: every form in which they are given, what stands around them, and the texts that come back."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_answerers import EOS, MASK, tiny_answerer

from lsd_sampler import MaskedDiffusionPipeline
from lsd_sampler.denoisers.canvas_input import CanvasInput
from lsd_sampler.denoisers.prompts import PaddedPrompts, answers, ended_at, read_prompts


@pytest.fixture(scope="module")
def pipe() -> MaskedDiffusionPipeline:
    return tiny_answerer("llada")


A, B, C = 5, 6, 7  # the words "a", "b", "c"
USER, BOT = 3, 4
CHAT = [{"role": "user", "content": "a b"}]


def ids_of(pipe: MaskedDiffusionPipeline, **given: Any) -> list[list[int]]:
    given = {"prompt": None, "messages": None, **given}
    return [ids.tolist() for ids in read_prompts(CanvasInput(pipe.denoiser, pipe.tokenizer), **given)]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a b", [[A, B]]),
        (["a b", "c"], [[A, B], [C]]),
        ("", [[]]),
        ([A, B], [[A, B]]),
        (torch.tensor([A, B]), [[A, B]]),
        ([[A, B], [C]], [[A, B], [C]]),
        ([torch.tensor([A]), torch.tensor([B, C])], [[A], [B, C]]),
        (torch.tensor([[A, B], [B, C]]), [[A, B], [B, C]]),
        (np.array([A, B]), [[A, B]]),
        (np.array([[A, B], [B, C]]), [[A, B], [B, C]]),
        (CHAT, [[USER, A, B, BOT]]),
        ([CHAT, [{"role": "user", "content": "c"}]], [[USER, A, B, BOT], [USER, C, BOT]]),
    ],
)
def test_forms_of_prompts(pipe: MaskedDiffusionPipeline, prompt: Any, expected: list[list[int]]) -> None:
    assert ids_of(pipe, prompt=prompt) == expected
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], dict):
        assert ids_of(pipe, messages=prompt) == expected


def test_padding_given_with_ids_is_taken_away(pipe: MaskedDiffusionPipeline) -> None:
    ids, mask = torch.tensor([[0, A], [B, C]]), torch.tensor([[0, 1], [1, 1]])
    assert ids_of(pipe, prompt=ids, attention_mask=mask) == [[A], [B, C]]


@pytest.mark.parametrize(
    ("call", "culprit"),
    [
        ({"prompt": "a", "messages": CHAT}, "`prompt` and `messages` exclude each other"),
        ({"prompt": []}, "`prompt` holds no prompt"),
        ({"prompt": [A, MASK]}, "`prompt` must be tokens without the mask"),
        ({"prompt": [A, 99]}, "`prompt` must be token ids in"),
        ({"prompt": [1.5]}, "`prompt` must be integer token ids"),
        ({"messages": "a"}, "`messages` must be a list of"),
        ({"messages": CHAT, "attention_mask": [[1]]}, "`attention_mask` goes with token ids"),
        ({"prompt": [[A, B]], "attention_mask": [[1]]}, "`attention_mask` must have the shape of `prompt`"),
        ({"prompt": "a", "prefix": "b"}, "`prompt` and `messages` exclude `prefix`"),
        ({"prompt": "a", "input_ids": [MASK]}, "exclude `input_ids`"),
        ({"prompt": "a", "length": 9}, "exclude `length`"),
        ({"prompt": "a", "class_labels": 1}, "exclude `class_labels`"),
        ({"prompt": "a", "max_new_tokens": 0}, "`max_new_tokens` must be a positive integer"),
        ({"prompt": "a", "max_new_tokens": 48}, "`max_new_tokens` 48 and a prompt of 1 tokens are more than 48"),
        ({"prompt": [A] * 48}, "`max_new_tokens` 1 and a prompt of 48 tokens"),
        ({"prompt": "a", "block_length": 0}, "`block_length` must be a positive integer"),
        ({"prompt": "a", "eos_token_id": MASK}, "`eos_token_id` must hold token ids"),
        ({"prompt": "a", "eos_token_id": [1, -1]}, "`eos_token_id` must hold token ids"),
        ({"prompt": "a", "eos_token_id": "<eos>"}, "`eos_token_id` must hold token ids"),
        ({"prompt": 5}, "`prompt` must be"),
        ({"messages": [{"role": "user"}, "a"]}, "`messages` must be a list of"),
        ({"prompt": "a", "guidance_scale": "x"}, "`guidance_scale` must be a finite number"),
        ({"prompt": "a", "max_new_tokens": 8, "block_length": 2, "num_inference_steps": 3}, "too few for 4 blocks"),
        ({"prompt": "a", "num_inference_steps": 0}, "`num_inference_steps` must be a positive integer"),
        ({"prompt": "a", "alg_temp": -1.0}, "`alg_temp` must be a finite number"),
        ({"prompt": "a", "top_p": 0.0}, "`top_p` must be in"),
        ({"prompt": "a", "generator": []}, "`generator` has 0 entries for 1 samples"),
        ({"prompt": "a", "callback_on_block_end": 3}, "`callback_on_block_end` must be a function"),
        ({"cache": "dual"}, "`cache` goes with `prompt` or `messages`"),
        ({"block_length": 3}, "`block_length` goes with"),
        ({"eos_early_stop": True}, "`eos_early_stop` goes with"),
        ({"attention_mask": [[1]]}, "`attention_mask` goes with"),
    ],
)
def test_bad_calls_are_named(pipe: MaskedDiffusionPipeline, call: dict[str, Any], culprit: str) -> None:
    with pytest.raises(ValueError, match=culprit):
        pipe(**call)


def test_messages_need_a_template(pipe: MaskedDiffusionPipeline) -> None:
    for tokenizer in (None, tiny_answerer().tokenizer):
        if tokenizer is not None:
            tokenizer.chat_template = None
        with pytest.raises(ValueError, match="`messages` need a tokenizer with a chat template"):
            MaskedDiffusionPipeline(pipe.denoiser, pipe.scheduler, tokenizer)(messages=CHAT)


def test_an_early_stop_needs_to_know_the_end() -> None:
    pipe = tiny_answerer("llada")
    pipe.denoiser.network.config.eos_token_id = None
    pipe = MaskedDiffusionPipeline(pipe.denoiser, pipe.scheduler)
    pipe.set_progress_bar_config(disable=True)
    with pytest.raises(ValueError, match="`eos_early_stop` needs `eos_token_id`"):
        pipe(prompt=[A], eos_early_stop=True)
    assert pipe(prompt=[A], max_new_tokens=3, eos_early_stop=True, eos_token_id=EOS).sequences.shape == (1, 4)


def test_padded_canvases() -> None:
    prompts = PaddedPrompts.of([torch.tensor([A]), torch.tensor([A, B, C])], 4, MASK, pad_id=0)
    assert prompts.canvas_BL.tolist() == [[0, 0, A, *[MASK] * 4], [A, B, C, *[MASK] * 4]]
    assert prompts.text_mask().tolist() == [[False] * 2 + [True] * 5, [True] * 7]
    blocks = {size: [(b.start, b.stop) for b in prompts.blocks(size)] for size in (None, 2, 3, 9)}
    assert blocks == {None: [(3, 7)], 2: [(3, 5), (5, 7)], 3: [(3, 6), (6, 7)], 9: [(3, 7)]}


def test_texts_end_where_the_text_ends() -> None:
    tokenizer = tiny_answerer().tokenizer
    new = torch.tensor([[A, B, EOS, C], [BOT, A, B, C], [EOS, A, A, A], [A, 0, B, EOS]])
    assert ended_at(new, [EOS, BOT]).tolist() == [2, 0, 0, 3]
    assert answers(tokenizer, new, [EOS]) == ["a b", "bot a b c", "", "a b"]
    assert answers(tokenizer, new, [])[0] == "a b c"


def test_room_for_new_tokens(pipe: MaskedDiffusionPipeline) -> None:
    """128 by default, or what there is room for after the longest prompt."""
    assert pipe(prompt=[[A] * 40, [A]], num_inference_steps=2).sequences.shape == (2, 48)


def test_texts_ids_and_samples(pipe: MaskedDiffusionPipeline) -> None:
    out = pipe(prompt=["a b", "c"], num_samples=2, max_new_tokens=4, eos_token_id=[])
    assert [row[:2] for row in out.sequences.tolist()] == [[A, B]] * 2 + [[0, C]] * 2
    assert out.texts == [pipe.tokenizer.decode(ids, skip_special_tokens=True) for ids in out.sequences[:, 2:].tolist()]
    assert pipe(prompt="a", max_new_tokens=2, output_type="ids").texts is None
    texts, sequences = pipe(prompt="a", max_new_tokens=2, return_dict=False)
    assert len(texts) == len(sequences) == 1
