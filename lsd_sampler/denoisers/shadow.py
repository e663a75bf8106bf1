"""Shadow rows: each token of a block predicted from all others, in the same call (WINO's check of what is known).

A mask for each position of the block stands behind the canvas, at the same position. The canvas does not see these
masks, so its rows stay what they are. A mask sees the canvas without its own position, and all other masks. As in the
authors' code, the token is hidden from the mask alone: what other positions learned of it in earlier layers is not.
"""

from collections.abc import Callable
from typing import Any

import torch

from .base import Denoiser


_CANVASES = 1024  # predicted at a time


def shadow_attention(length: int, shadow: slice, device: torch.device | None = None) -> torch.Tensor:
    """Which key each query sees, bool of shape `(length + size, length + size)`, for a canvas of this length and the
    positions `shadow` of it.
    """
    size = shadow.stop - shadow.start
    sees = torch.ones(length + size, length + size, dtype=torch.bool, device=device)
    sees[:length, length:] = False
    sees[length:, shadow] = ~torch.eye(size, dtype=torch.bool, device=device)
    return sees


def behind(tokens: torch.Tensor, shadow: slice, mask_token_id: int) -> torch.Tensor:
    """The canvases `(batch_size, length)`, and behind them the masks of the shadow."""
    return torch.cat([tokens, torch.full_like(tokens[:, shadow], mask_token_id)], dim=1)


def at_places(rotary: tuple[torch.Tensor, torch.Tensor], shadow: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of positions `(length, d)`, and behind them those of the shadow's places."""
    cos, sin = rotary
    return torch.cat([cos, cos[shadow]]), torch.cat([sin, sin[shadow]])


def leave_one_out(
    predict: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor, shadow: slice, mask_token_id: int
) -> torch.Tensor:
    """What `predict` says of canvases, and behind it of each position in the shadow without its own token: by a canvas
    for each, for oracles, whose calls cost no network.
    """
    whole = predict(tokens)
    rows = whole[:, shadow].clone()
    known = (tokens[:, shadow] != mask_token_id).nonzero()
    for batch, place in (part.unbind(1) for part in known.split(_CANVASES)):
        canvases, each = tokens[batch], torch.arange(len(batch), device=tokens.device)
        canvases[each, place + shadow.start] = mask_token_id
        rows[batch, place] = predict(canvases)[each, place + shadow.start]
    return torch.cat([whole, rows], dim=1)


def check_shadow(denoiser: Denoiser, scheduler: Any) -> bool:
    """Whether the scheduler reads shadow rows.

    Raises:
        ValueError: if it does, and the denoiser has none.
    """
    reads = bool(getattr(scheduler, "reads_shadow", False))
    if reads and not getattr(denoiser, "takes_shadow", False):
        raise ValueError(
            f"`solver` {scheduler.config.solver!r} asks how likely a token is without itself, and"
            f" {type(denoiser).__name__} cannot say that in one call: it needs a dense attention mask. Take another"
            " `solver`."
        )
    return reads
