"""Canvases that a model fills in to answer: of prompts, of texts with masks, and of token ids."""

import re
from collections.abc import Sequence
from typing import Any

import torch

from ..support.tasks import Task, prompt_ids
from .mask_token import USUAL_MASKS


def task_canvases(
    items: Sequence[Task], pipeline: Any, length: int | None = None, argument: str = "--tasks"
) -> list[torch.Tensor]:
    """The canvas of each item, `torch.LongTensor` of shape `(length,)`, as `pipeline(input_ids=...)` takes it.

    Args:
        items (sequence of `dict`): see `read_tasks`.
        pipeline (`MaskedDiffusionPipeline`): the model.
        length (`int`, *optional*): tokens of a prompt and its answer; default: the denoiser's. A canvas has its own.
        argument (`str`): what messages call the items.

    Raises:
        ValueError: if the model cannot fill in an item; the message names the item.
    """
    canvases = []
    for number, item in enumerate(items):
        try:
            canvas = pipeline.canvas_of(_ids_of(item, pipeline, length or pipeline.denoiser.length))[0]
            if not bool((canvas == pipeline.denoiser.hole_id).any()):
                raise ValueError("it has nothing to fill in.")
        except ValueError as error:
            raise ValueError(f"`{argument}`, item {number}: {error}") from error
        canvases.append(canvas)
    return canvases


def answer_canvases(
    items: Sequence[Task], pipeline: Any, max_new_tokens: int | None, chat: bool = False, argument: str = "--tasks"
) -> list[torch.Tensor]:
    """The prompt of each item with a hole for each token of its answer, `torch.LongTensor` of shape `(length,)`.

    Args:
        items (sequence of `dict`), pipeline, argument: as for [`task_canvases`].
        max_new_tokens (`int`, *optional*): tokens of an answer; default: 128, or what the longest prompt leaves room
            for.
        chat (`bool`): whether a prompt is what a user says, for the tokenizer's chat template.

    Raises:
        ValueError: if an item has no prompt, or there is no room for its answer.
    """
    if (other := next((i for i, item in enumerate(items) if "prompt" not in item), None)) is not None:
        raise ValueError(f"`{argument}`, item {other}: blocks answer prompts, and this is a 'canvas'.")
    texts: list[Any] = [item["prompt"] for item in items]
    asked: dict[str, Any] = {"prompt": texts, "max_new_tokens": max_new_tokens}
    if chat:
        asked |= {"prompt": None, "messages": [[{"role": "user", "content": text}] for text in texts]}
    return pipeline.prompt_canvases(asked)


def _ids_of(item: Task, pipeline: Any, length: int) -> list[int]:
    tokenizer, hole = pipeline.tokenizer, pipeline.denoiser.hole_id
    content = item.get("canvas", item.get("prompt"))
    if not isinstance(content, str):
        return [hole if i in (None, -1) else i for i in content or ()]
    if tokenizer is None:
        raise ValueError("the model has no tokenizer: give a 'canvas' of token ids.")
    if "canvas" in item:
        return masked_text_ids(content, tokenizer, hole)
    ids = prompt_ids(tokenizer, content)
    if len(ids) >= length:
        raise ValueError(f"its prompt has {len(ids)} tokens, which leaves no room for an answer in {length}.")
    return ids + [hole] * (length - len(ids))


def masked_text_ids(text: str, tokenizer: Any, hole: int) -> list[int]:
    """Token ids of a text in which the tokenizer's mask token, `[MASK]` or `<mask>` stands for a hole."""
    own, own_id = getattr(tokenizer, "mask_token", None), getattr(tokenizer, "mask_token_id", None)
    others = [mask for mask in USUAL_MASKS if mask != own]
    ids: list[int] = []
    parts = re.split("|".join(map(re.escape, others)), text)
    for k, part in enumerate(parts):
        # a space before a mask belongs to the word in its place
        part = part if k == len(parts) - 1 else part.rstrip(" ")
        encoded = prompt_ids(tokenizer, part) if part else []
        ids += ([hole] if k else []) + [hole if i == own_id else i for i in encoded]
    return ids
