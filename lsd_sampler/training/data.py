"""Real sequences, and whether they can be learned from."""

import torch

from .teacher_plan import TeacherPlan


def token_ids(data: torch.Tensor) -> torch.Tensor:
    """The token ids as int64.

    Raises:
        ValueError: unless they are integers of shape `(num, seq_len)`.
    """
    if data.ndim != 2 or data.is_floating_point() or data.is_complex() or data.dtype == torch.bool:
        raise ValueError(
            f"`data` must be token ids of shape (num, seq_len), integers, got {data.dtype}, {tuple(data.shape)}."
        )
    return data.long()


def check_data(data: torch.Tensor, num_sequences: int, plan: TeacherPlan) -> None:
    """Raises `ValueError` unless these are sequences that a call of the pipeline could end with."""
    if plan.is_whole and data.shape[1] != plan.num_masked:
        raise ValueError(
            f"`data` has {data.shape[1]} tokens in a sequence, but this call of the pipeline fills a canvas of"
            f" {plan.num_masked}: give whole canvases."
        )
    if len(data) < num_sequences:
        raise ValueError(f"`data` has {len(data)} sequences, fewer than `num_sequences` {num_sequences}.")
    if bool((data == plan.mask_token_id).any()):
        raise ValueError(f"`data` must be real tokens, without the mask {plan.mask_token_id}.")
    low, high = (int(bound) for bound in data.aminmax())
    if low < 0 or (plan.num_columns is not None and high >= plan.num_columns):
        raise ValueError(f"`data` must be token ids below {plan.num_columns}, got {low if low < 0 else high}.")


def check_complete(
    data_BL: torch.Tensor, given_BL: torch.Tensor, masked_BL: torch.Tensor, first: int = 0, frame: int = 0
) -> None:
    """Checks that sequences complete partly given canvases.

    Args:
        data_BL, given_BL (`torch.LongTensor` of shape `(batch_size, seq_len)`): the sequences, and their canvases.
        masked_BL (`torch.BoolTensor` of that shape): where the canvases are masked.
        first (`int`), frame (`int`): row and position at which they begin in the data, for messages.

    Raises:
        ValueError: if a sequence differs from what its canvas gives, or a canvas gives everything.
    """
    wrong_N2 = (~masked_BL & (data_BL != given_BL)).nonzero()
    if len(wrong_N2):
        row, position = wrong_N2[0].tolist()
        raise ValueError(
            f"`data`: row {first + row} has token {int(data_BL[row, position])} at position {frame + position} (both"
            f" counted from 0), where its canvas gives {int(given_BL[row, position])}. Row i must complete canvas i"
            " (modulo their number), with all tokens that are given."
        )
    full_N = (~masked_BL.any(1)).nonzero()[:, 0].tolist()
    if full_N:
        raise ValueError(
            f"`data`: nothing is masked in the canvas of row {first + full_N[0]} (counted from 0), so there is nothing"
            " to learn from it. Leave out canvases that are given entirely."
        )
