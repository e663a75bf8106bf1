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
    if plan.num_canvases > 1 or data.shape[1] != plan.num_masked:
        canvases = f"{plan.num_canvases} canvases, each" if plan.num_canvases > 1 else "a canvas"
        raise ValueError(
            f"`data` has {data.shape[1]} tokens in a sequence, but this call of the pipeline fills {canvases} with"
            f" {plan.num_masked} masked positions. Data can stand for a whole canvas only: no prompt, no blocks."
        )
    if len(data) < num_sequences:
        raise ValueError(f"`data` has {len(data)} sequences, fewer than `num_sequences` {num_sequences}.")
    if bool((data == plan.mask_token_id).any()):
        raise ValueError(f"`data` must be real tokens, without the mask {plan.mask_token_id}.")
    low, high = (int(bound) for bound in data.aminmax())
    if low < 0 or (plan.num_columns is not None and high >= plan.num_columns):
        raise ValueError(f"`data` must be token ids below {plan.num_columns}, got {low if low < 0 else high}.")
