"""What a user gives a pipeline, as token ids: canvases to fill in, and prompts to go on from."""

import logging
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .base import Denoiser
from .frames import held_frame
from .vocabulary import token_names, unknown_share


logger = logging.getLogger(__name__)

TokenIds = Sequence[int] | torch.Tensor
Conversation = Sequence[Mapping[str, Any]]


class CanvasInput:
    """Reads texts, token ids and conversations for a denoiser.

    Args:
        denoiser ([`~lsd_sampler.denoisers.Denoiser`]): whose tokens they are.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): needed for texts only.
    """

    def __init__(self, denoiser: Denoiser, tokenizer: Any | None):
        self.denoiser, self.tokenizer = denoiser, tokenizer

    def canvas(
        self,
        prefix: str | Sequence[str] | TokenIds | None,
        suffix: str | Sequence[str] | TokenIds | None,
        input_ids: TokenIds | Sequence[Sequence[int]] | None,
        length: int | None,
    ) -> torch.Tensor:
        """The canvases to fill in, of shape `(batch_size, length)`."""
        if length is not None:
            length = positive_integer("length", length)
        if input_ids is None:
            length = self.denoiser.length if length is None else self.check_length(length)
            pairs = zip(*_equally_many(prefix, suffix), strict=True)
            return torch.cat([self._frame(start, end, length) for start, end in pairs])
        if prefix is not None or suffix is not None:
            raise ValueError("`input_ids` excludes `prefix` and `suffix`: put their tokens into `input_ids`.")
        canvas = self.canvas_of(input_ids)
        if length is not None and length != canvas.shape[1]:
            raise ValueError(f"`length` is {length}, but `input_ids` has {canvas.shape[1]} positions.")
        return canvas

    def canvas_of(self, input_ids: TokenIds | Sequence[Sequence[int]]) -> torch.Tensor:
        """Canvases in which masks are to be filled in, of shape `(batch_size, length)`.

        Raises:
            ValueError: if this pipeline cannot fill them in.
        """
        canvas = self._check_ids("input_ids", input_ids, holes_allowed=True)
        canvas = canvas[None] if canvas.ndim == 1 else canvas
        if canvas.ndim != 2 or not canvas.numel():
            shape = tuple(canvas.shape)
            raise ValueError(f"`input_ids` must have shape (length,) or (batch_size, length), got {shape}.")
        self.check_length(self.framed(canvas)[1].shape[1])
        return canvas

    def framed(self, canvas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The canvases in three parts: the denoiser's own frame before, the part to fill in, and the frame after."""
        before, after = held_frame(canvas, getattr(self.denoiser, "frame_token_ids", None))
        return canvas.tensor_split((before, canvas.shape[1] - after), dim=1)  # pyright: ignore[reportReturnType]

    def _frame(self, prefix: str | TokenIds | None, suffix: str | TokenIds | None, length: int) -> torch.Tensor:
        start, end = self.encode("prefix", prefix), self.encode("suffix", suffix)
        room = length - len(start) - len(end)
        if room < 0:
            sizes = f"{len(start)} + {len(end)}"
            raise ValueError(f"`prefix` and `suffix` have {sizes} tokens, more than `length` {length}.")
        return torch.cat([start, start.new_full((room,), self.denoiser.hole_id), end])[None]

    def encode(self, name: str, text: str | TokenIds | None) -> torch.Tensor:
        """Token ids of a text (or checked ids), `(n,)`; none of None."""
        if text is None:
            return torch.empty(0, dtype=torch.int64)
        if isinstance(text, str):
            if self.tokenizer is None:
                raise ValueError(f"`{name}` is a text, but this pipeline has no tokenizer: pass token ids.")
            # of an empty text, an empty list would become floats
            text = torch.tensor(self._tokens_of(name, text), dtype=torch.int64)
        ids = self._check_ids(name, text, holes_allowed=False)
        if ids.ndim != 1:
            raise ValueError(f"`{name}` must be a text or token ids of shape (n,), got {tuple(ids.shape)}.")
        return ids

    def _tokens_of(self, name: str, text: str) -> list[int]:
        assert self.tokenizer is not None
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        if said := unknown_share(self.tokenizer, ids):
            logger.warning("`%s`: %s", name, said)
        most = self.denoiser.vocab_size - (self.denoiser.mask_token_id is None)
        for i in ids:
            if i > most and i != self.denoiser.hole_id:
                token = token_names(self.tokenizer)(i)
                raise ValueError(
                    f"`{name}` holds {token!r}, token {i} of the tokenizer, but the denoiser has {most + 1} ids only:"
                    " the tokenizer is larger than the model. Leave such words out."
                )
        return ids

    def _check_ids(self, name: str, ids: Any, holes_allowed: bool) -> torch.Tensor:
        try:
            ids = torch.as_tensor(ids)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"`{name}` must be token ids in rows of equal length: {error}") from error
        if ids.numel() and (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool):
            raise ValueError(f"`{name}` must be integer token ids, got {ids.dtype}.")
        ids, hole = ids.to("cpu", torch.int64), self.denoiser.hole_id
        most = self.denoiser.vocab_size - (self.denoiser.mask_token_id is None)
        bad = ids[torch.where(ids == hole, not holes_allowed, (ids < 0) | (ids > most))]
        if bad.numel() and int(bad[0]) == hole:
            what = "the mask" if hole >= 0 else "the mark of a hole,"
            raise ValueError(
                f"`{name}` must be tokens without {what} {hole}: give the whole canvas, with what is to be filled in,"
                " as `input_ids` (`lsd-sample --infill`)."
            )
        if bad.numel():
            holes = f", or {hole} for a hole" if holes_allowed else ""
            raise ValueError(f"`{name}` must be token ids in [0, {most}]{holes}, got {int(bad[0])}.")
        return ids

    def check_length(self, length: int) -> int:
        """`length`; raises `ValueError` if the denoiser does not take so many tokens."""
        if length > self.denoiser.length:
            raise ValueError(f"`length` must be at most {self.denoiser.length}, the denoiser's, got {length}.")
        return length


def _equally_many(*ends: Any) -> list[list[Any]]:
    """The beginning and end of each canvas, from one text for all or a list of texts."""
    lists = [isinstance(end, list | tuple) and end and all(isinstance(text, str) for text in end) for end in ends]
    numbers_of_texts = {len(end) for end, is_list in zip(ends, lists, strict=True) if is_list}
    if len(numbers_of_texts) > 1:
        raise ValueError(f"`prefix` and `suffix` must have equally many texts, got {sorted(numbers_of_texts)}.")
    num = max(numbers_of_texts, default=1)
    return [list(end) if is_list else [end] * num for end, is_list in zip(ends, lists, strict=True)]


def positive_integer(name: str, value: int) -> int:
    """The value as an `int`; raises `ValueError`, naming the argument, unless it is a positive integer."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, got {value!r}.")
    return int(value)
