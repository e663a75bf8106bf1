"""The step-error table, estimated from sums by state and rank."""

import torch

from .isotonic import isotonic_decreasing


def estimate_table(
    nats_GL: torch.Tensor, seen_GL: torch.Tensor, exchangeable: bool, masked_GL: torch.Tensor | None = None
) -> torch.Tensor:
    """Means by state and rank, made non-increasing in the state, because a later context is no worse in expectation.

    Args:
        nats_GL, seen_GL (`torch.DoubleTensor` of shape `(num_states, seq_len)`): sums, and their numbers of terms.
        exchangeable (`bool`): whether all ranks have one expectation at a state (random order); they are then pooled.
        masked_GL (`torch.BoolTensor` of that shape, *optional*): where a position is masked; default: where it was
            seen. A rank that was never seen gets the mean of all ranks.

    Returns:
        `torch.DoubleTensor` of shape `(num_states, seq_len)`; 0 where the position is known.
    """
    masked_GL = seen_GL > 0 if masked_GL is None else masked_GL
    table_GL = _means(nats_GL.sum(1), seen_GL.sum(1))[:, None] * masked_GL
    if not exchangeable:
        for rank in (seen_GL.sum(0) > 0).nonzero()[:, 0].tolist():
            table_GL[:, rank] = _means(nats_GL[:, rank], seen_GL[:, rank]) * masked_GL[:, rank]
    return table_GL


def _means(nats_G: torch.Tensor, seen_G: torch.Tensor) -> torch.Tensor:
    """Non-increasing means. A state where nothing was seen has the mean of the one before (the first: of the next)."""
    is_seen_G = seen_G > 0
    means = isotonic_decreasing(nats_G[is_seen_G] / seen_G[is_seen_G], seen_G[is_seen_G])
    return means[(is_seen_G.cumsum(0) - 1).clamp(min=0)]
