"""Tokens of data that a network never predicts (`[UNK]`, special tokens): they are left out of every sum.

No sampler draws them, so their cost says nothing about a sampler. They stay where they are as context.
"""

import logging
from collections.abc import Callable, Sequence

import torch

from .logit_rows import ModelOutput, row_chunks


logger = logging.getLogger(__name__)

LEFT_OUT = -1
"""Stands for such a token where only counted tokens matter."""
MOST_LEFT_OUT = 0.25
"""Data of which a larger share is never predicted are refused."""
NEVER_NATS = 1000.0
"""A token that costs more nats than this wherever all is masked counts as one with a logit of -inf."""
_MOST_NAMED = 5


def log_probability_bounds(
    logits_BLV: ModelOutput, row_R: torch.Tensor, position_R: torch.Tensor, excluded: int | None
) -> torch.Tensor:
    """The largest log-probability that each token has in any of the chosen rows, float32 of shape `(V,)`."""
    bounds_V = torch.full((logits_BLV.shape[-1],), -torch.inf, device=row_R.device)
    for x_RV in row_chunks(logits_BLV, row_R, position_R, excluded):
        bounds_V = torch.maximum(bounds_V, (x_RV - x_RV.logsumexp(-1, keepdim=True)).amax(0).float())
    return bounds_V


def never_predicted(bounds_V: torch.Tensor) -> list[int]:
    """The tokens that no row admits, by what [`log_probability_bounds`] returned."""
    return (bounds_V < -NEVER_NATS).nonzero()[:, 0].tolist()


def is_predicted(tokens: torch.Tensor, never: Sequence[int]) -> torch.Tensor:
    """Where a token may be predicted, bool of the same shape."""
    return ~torch.isin(tokens, torch.tensor(never, dtype=torch.int64, device=tokens.device))


def check_predicted(
    name: str, tokens: torch.Tensor, never: Sequence[int], token_of: Callable[[int], str | None] = lambda _: None
) -> str | None:
    """A sentence about the tokens that are never predicted; None if there are none.

    Args:
        name (`str`): what messages call the data.
        tokens (`torch.LongTensor`): the data.
        never (sequence of `int`): the tokens that the network never predicts.
        token_of (*optional*): from an id to the token.

    Raises:
        ValueError: if they are more than a share of `MOST_LEFT_OUT`.
    """
    found, counts = tokens[~is_predicted(tokens, never)].unique(return_counts=True)
    number = int(counts.sum())
    if not number:
        return None
    share = number / tokens.numel()
    named = [_named(token_of(int(found[i])), int(found[i])) for i in counts.argsort(descending=True)[:_MOST_NAMED]]
    listed = ", ".join(named) + (", ..." if len(found) > _MOST_NAMED else "")
    said = f"`{name}`: {share:.1%} of the tokens ({number} of {tokens.numel()}) are never predicted by the model"
    if share > MOST_LEFT_OUT:
        raise ValueError(
            f"{said} ({listed}), more than {MOST_LEFT_OUT:.0%}: give text that its tokenizer knows (the same case and"
            " spaces), without padding."
        )
    return f"{said} and left out of every sum: {listed}."


def _named(token: str | None, i: int) -> str:
    return str(i) if token is None else f"{token!r}"
