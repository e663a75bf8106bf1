"""How sure a denoiser is of a position, read off its law of the token there.

Shape suffixes: B batch, L positions, V vocabulary, R chosen rows.
"""

from collections.abc import Callable
from typing import Any

import torch

from ..support.validation import check_choice, check_number
from .logit_rows import ModelOutput, check_row_maximum, row_chunks


CERTAINTIES = ("untempered", "tempered")
"""Which law says how sure a denoiser is: its own, or the one that tokens are drawn from."""


def check_certainty(config: Any) -> None:
    """Raises `ValueError` unless a scheduler's config has a valid `certainty`."""
    check_choice("certainty", config.certainty, CERTAINTIES)
    check_number("confidence_temperature", config.confidence_temperature, low=0)


def entropy(p_RV: torch.Tensor) -> torch.Tensor:
    """Entropy of each row, in nats."""
    return torch.special.entr(p_RV).sum(-1)


def margin(p_RV: torch.Tensor) -> torch.Tensor:
    """Probability of the most likely token minus that of the next."""
    if p_RV.shape[-1] == 1:
        return p_RV[:, 0]
    first_R, second_R = p_RV.topk(2, dim=-1).values.unbind(-1)
    return first_R - second_R


def top_probability(p_RV: torch.Tensor) -> torch.Tensor:
    return p_RV.amax(-1)


def of_rows(
    measure: Callable[[torch.Tensor], torch.Tensor],
    logits_BLV: ModelOutput,
    row_R: torch.Tensor,
    position_R: torch.Tensor,
    excluded: int | None,
) -> torch.Tensor:
    """A measure of the laws `softmax(logits)` of chosen rows, float64 of shape `(R,)`.

    Args:
        measure: one of the functions above.
        logits_BLV, row_R, position_R, excluded: as for [`~lsd_sampler.sampling.logit_rows.row_chunks`].

    Raises:
        ValueError: if a chosen row holds NaN or +inf, or only -inf.
    """
    measured = []
    for x_RV in row_chunks(logits_BLV, row_R, position_R, excluded):
        check_row_maximum(x_RV.amax(-1))
        measured.append(measure(x_RV.softmax(-1)).double())
    return torch.cat(measured) if measured else torch.empty(0, dtype=torch.float64, device=row_R.device)


def of_tokens(
    logits_BLV: ModelOutput,
    row_R: torch.Tensor,
    position_R: torch.Tensor,
    token_R: torch.Tensor,
    excluded: int | None,
) -> torch.Tensor:
    """Log-probability of a token in each chosen row, by `softmax(logits)`, float64 of shape `(R,)`.

    Args:
        logits_BLV, row_R, position_R, excluded: as for [`~lsd_sampler.sampling.logit_rows.row_chunks`].
        token_R (`torch.LongTensor` of shape `(R,)`): the tokens.
    """
    rated, done = [token_R.new_empty(0, dtype=torch.float64)], 0
    for x_RV in row_chunks(logits_BLV, row_R, position_R, excluded):
        token, done = token_R[done : done + len(x_RV)], done + len(x_RV)
        rated.append((x_RV.gather(1, token[:, None])[:, 0] - x_RV.logsumexp(-1)).double())
    return torch.cat(rated)


def ranks(score_BL: torch.Tensor) -> torch.Tensor:
    """Place of each position in its row, the highest score first, from 0; of equal scores the leftmost first."""
    return score_BL.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
