"""What a token costs under a network's prediction."""

import torch

from ..sampling.logit_rows import ModelOutput, check_row_maximum, row_chunks


MAX_NATS = 100.0
"""A final token that a context deems impossible costs this much."""


def cross_entropy(
    logits_BLV: ModelOutput,
    row_R: torch.Tensor,
    position_R: torch.Tensor,
    token_R: torch.Tensor,
    excluded: int | None,
    beta: float = 1.0,
) -> torch.Tensor:
    """`-log softmax(beta * logits)[token]` of the chosen rows in nats, at most `MAX_NATS`. float64 of shape `(R,)`."""
    nats, done = [], 0
    for x_RV in row_chunks(logits_BLV, row_R, position_R, excluded):
        token, done = token_R[done : done + len(x_RV)], done + len(x_RV)
        check_row_maximum(x_RV.amax(-1))
        if beta != 1:  # an impossible token stays impossible, even at beta = 0
            x_RV = (beta * x_RV).masked_fill(x_RV == -torch.inf, -torch.inf)
        nats.append((x_RV.logsumexp(-1) - x_RV.gather(1, token[:, None])[:, 0]).double().clamp(max=MAX_NATS))
    return torch.cat(nats) if nats else row_R.double()
