"""The tokens around a canvas (`[CLS]`, `[SEP]`): a denoiser puts them there, and tokenizers do too."""

from collections.abc import Sequence

import torch


Frame = tuple[Sequence[int], Sequence[int]]


def held_frame(rows_NL: torch.Tensor, frame: Frame | None) -> tuple[int, int]:
    """The number of tokens at the beginning, and at the end, of all rows that belong to the frame.

    Args:
        rows_NL (`torch.LongTensor` of shape `(num, length)`): tokens.
        frame (a pair of sequences of `int`, *optional*): what surrounds a text.
    """
    held_N2 = [_holds(rows_NL, ids, at_end) for ids, at_end in zip(frame or ((), ()), (False, True), strict=True)]
    before, after = (
        len(ids) if bool(held_N.all()) else 0 for ids, held_N in zip(frame or ((), ()), held_N2, strict=True)
    )
    return (before, after) if before + after < rows_NL.shape[1] else (0, 0)


def without_frame(rows_NL: torch.Tensor, frame: Frame | None) -> torch.Tensor:
    """The rows without the frame, where all hold it."""
    before, after = held_frame(rows_NL, frame)
    return rows_NL[:, before : rows_NL.shape[1] - after]


def _holds(rows_NL: torch.Tensor, ids: Sequence[int], at_end: bool) -> torch.Tensor:
    edge_NE = rows_NL[:, -len(ids) :] if at_end else rows_NL[:, : len(ids)]
    if not len(ids) or edge_NE.shape[1] < len(ids):
        return torch.zeros(len(rows_NL), dtype=torch.bool, device=rows_NL.device)
    return (edge_NE == torch.tensor([*ids], device=rows_NL.device)).all(1)
