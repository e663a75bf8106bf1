"""Prompts that a generation goes on from: read, padded on the left to one length, and followed by masks.

Shape suffixes: B batch, L positions.
"""

import numbers
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from .canvas_input import CanvasInput, Conversation, TokenIds, positive_integer


DEFAULT_NEW_TOKENS = 128

Prompts = str | TokenIds | Sequence[str] | Sequence[TokenIds] | Conversation | Sequence[Conversation]


@dataclass(frozen=True)
class PaddedPrompts:
    """Canvases that begin with prompts.

    Args:
        canvas_BL (`torch.LongTensor` of shape `(batch_size, length)`): padding, prompt, and masks to the end.
        padding_B (`torch.LongTensor` of shape `(batch_size,)`): tokens of padding on the left.
        start (`int`): where the masks begin, in all canvases.
    """

    canvas_BL: torch.Tensor
    padding_B: torch.Tensor
    start: int

    @classmethod
    def of(cls, prompts: Sequence[torch.Tensor], max_new_tokens: int, hole_id: int, pad_id: int) -> "PaddedPrompts":
        """Pads prompts, each of shape `(n,)`, and puts masks after them."""
        start = max(len(prompt) for prompt in prompts)
        canvas_BL = torch.full((len(prompts), start + max_new_tokens), hole_id)
        for row, prompt in zip(canvas_BL, prompts, strict=True):
            row[: start - len(prompt)] = pad_id
            row[start - len(prompt) : start] = prompt
        return cls(canvas_BL, torch.tensor([start - len(prompt) for prompt in prompts]), start)

    @property
    def max_new_tokens(self) -> int:
        """Tokens to generate."""
        return self.canvas_BL.shape[1] - self.start

    def text_mask(self) -> torch.Tensor:
        """False at the padding. `(B, L)`, bool."""
        return torch.arange(self.canvas_BL.shape[1]) >= self.padding_B[:, None]

    def blocks(self, block_length: int | None) -> list[slice]:
        """The positions of each block, from left to right; the last may be shorter. None: one for all."""
        end, size = self.canvas_BL.shape[1], block_length or self.max_new_tokens
        return [slice(i, min(i + size, end)) for i in range(self.start, end, size)]


@dataclass(frozen=True)
class PromptOptions:
    """Options of a pipeline's call that go with prompts; `MaskedDiffusionPipeline` says what they mean.

    Raises:
        ValueError: for one that is out of range.
    """

    max_new_tokens: int | None = None
    block_length: int | None = None
    cache: str = "none"
    eos_early_stop: bool = False
    eos_token_id: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "block_length"):
            if getattr(self, name) is not None:
                positive_integer(name, getattr(self, name))

    def given(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def check_unused(self, **others: Any) -> None:
        """Raises `ValueError`, naming it, if an option (or one of the others, whose default is None) was given."""
        given = [*self.given()]
        given += [name for name, value in others.items() if value is not None]
        if given:
            raise ValueError(f"`{given[0]}` goes with `prompt` or `messages`: give one of them, or leave it out.")

    def padded(self, prompts: Sequence[torch.Tensor], denoiser: Any, pad_id: int) -> PaddedPrompts:
        """Canvases of these prompts, each of shape `(n,)`. By default there are 128 new tokens, or as many as there is
        room for.

        Raises:
            ValueError: if there is no room, or no mask.
        """
        if denoiser.mask_token_id is None:
            raise ValueError(f"`prompt` needs a denoiser with a mask, and {type(denoiser).__name__} has none.")
        longest, wanted = max(len(prompt) for prompt in prompts), self.max_new_tokens
        if longest + (wanted or 1) > denoiser.length:
            raise ValueError(
                f"`max_new_tokens` {wanted or 1} and a prompt of {longest} tokens are more than {denoiser.length}, the"
                " denoiser's length: shorten the prompt, or ask for fewer tokens."
            )
        num = min(DEFAULT_NEW_TOKENS, denoiser.length - longest) if wanted is None else wanted
        return PaddedPrompts.of(prompts, num, denoiser.mask_token_id, pad_id)

    def endings(self, denoiser: Any, tokenizer: Any | None) -> list[int]:
        """The tokens that end a text: those given, or else those of the tokenizer and of the denoiser's config.

        Raises:
            ValueError: for one that is no id of the denoiser's; if there is none for `eos_early_stop`.
        """
        known = [getattr(tokenizer, "eos_token_id", None), *getattr(denoiser, "eos_token_ids", ())]
        ids = [i for i in known if i is not None and _is_token(i, denoiser)]
        if self.eos_token_id is not None:
            given: Any = (
                self.eos_token_id.tolist() if isinstance(self.eos_token_id, torch.Tensor) else self.eos_token_id
            )
            ids = list(given) if isinstance(given, list | tuple) else [given]
        if bad := [i for i in ids if not _is_token(i, denoiser)]:
            raise ValueError(f"`eos_token_id` must hold token ids of the denoiser, got {bad[0]!r}.")
        if self.eos_early_stop and not ids:
            raise ValueError(
                "`eos_early_stop` needs `eos_token_id`: neither tokenizer nor model says what ends a text."
            )
        return sorted({int(i) for i in ids})


def _is_token(i: Any, denoiser: Any) -> bool:
    if isinstance(i, bool) or not isinstance(i, numbers.Integral):
        return False
    return 0 <= int(i) <= denoiser.vocab_size and int(i) != denoiser.mask_token_id


def read_prompts(
    reader: CanvasInput,
    prompt: Prompts | None,
    messages: Conversation | Sequence[Conversation] | None,
    attention_mask: Any = None,
) -> list[torch.Tensor]:
    """The token ids of each prompt, `(n,)` each.

    Args:
        reader ([`~lsd_sampler.denoisers.canvas_input.CanvasInput`]): encodes texts, and checks ids.
        prompt: a text, token ids, or a list of either. A list of messages is a conversation.
        messages: a conversation, a list of `{"role": ..., "content": ...}`; or a list of them.
        attention_mask (of shape `(batch_size, n)`, *optional*): 0 where ids of `prompt` are padding.

    Raises:
        ValueError: if there is none, or one that cannot be read.
    """
    if (prompt is None) == (messages is None):
        raise ValueError("`prompt` and `messages` exclude each other: give one of them.")
    if messages is not None or _is_conversation(prompt) or _are_conversations(prompt):
        if attention_mask is not None:
            raise ValueError("`attention_mask` goes with token ids as `prompt`, not with messages.")
        return [reader.encode("messages", ids) for ids in _templated(reader.tokenizer, messages or prompt)]
    listed = _as_list(prompt)
    if not listed:
        raise ValueError("`prompt` holds no prompt.")
    prompts = [reader.encode("prompt", entry) for entry in listed]
    if attention_mask is None:
        return prompts
    masks = torch.as_tensor(attention_mask).bool().reshape(len(prompts), -1)
    if any(len(mask) != len(entry) for mask, entry in zip(masks, prompts, strict=True)):
        raise ValueError(f"`attention_mask` must have the shape of `prompt`, got {tuple(masks.shape)}.")
    return [entry[mask.cpu()] for mask, entry in zip(masks, prompts, strict=True)]


def padding_token(endings: Collection[int], denoiser: Any, tokenizer: Any | None) -> int:
    """A token to pad with. It is never seen, so any will do that is not the mask."""
    candidates = [getattr(tokenizer, "pad_token_id", None), *sorted(endings), 0, 1]
    return next(i for i in candidates if i is not None and _is_token(i, denoiser))


def answers(tokenizer: Any, new_BG: torch.Tensor, endings: Collection[int]) -> list[str]:
    """The texts of new tokens, without special tokens, each up to the first token that ends it."""
    ends = ended_at(new_BG, endings).tolist()
    return [
        tokenizer.decode(ids[:end], skip_special_tokens=True) for ids, end in zip(new_BG.tolist(), ends, strict=True)
    ]


def ended_at(new_BG: torch.Tensor, endings: Collection[int]) -> torch.Tensor:
    """The place of the first token that ends a text, or the length where there is none. `(B,)`."""
    ends_BG = torch.isin(new_BG, torch.tensor([*endings], dtype=torch.int64, device=new_BG.device))
    at_BG = torch.arange(new_BG.shape[1], device=new_BG.device).expand_as(new_BG)
    return at_BG.masked_fill(~ends_BG, new_BG.shape[1]).amin(1)


def _as_list(prompt: Any) -> list[Any]:
    if isinstance(prompt, str) or not hasattr(prompt, "__len__") or getattr(prompt, "ndim", 2) < 2:
        return [prompt]
    entries = list(prompt)
    return [entries] if entries and not hasattr(entries[0], "__len__") else entries


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(entry, Mapping) for entry in value)


def _are_conversations(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(_is_conversation(entry) for entry in value)


def _templated(tokenizer: Any | None, messages: Any) -> list[list[int]]:
    """Conversations through the tokenizer's chat template, each up to where the answer begins."""
    conversations = [messages] if _is_conversation(messages) else messages
    if not _are_conversations(conversations):
        raise ValueError('`messages` must be a list of {"role": ..., "content": ...}, or a list of such lists.')
    if getattr(tokenizer, "chat_template", None) is None:
        raise ValueError("`messages` need a tokenizer with a chat template: pass a text as `prompt`.")
    assert tokenizer is not None
    return tokenizer.apply_chat_template(conversations, add_generation_prompt=True, return_dict=False)
