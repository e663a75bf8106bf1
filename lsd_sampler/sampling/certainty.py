"""How sure a denoiser is of a position, read off its law of the token there.

Shape suffixes: B batch, L positions, V vocabulary, R chosen rows.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..support.validation import check_choice, check_number
from .logit_rows import ModelOutput, check_row_maximum, row_chunks


CERTAINTIES = ("untempered", "tempered")
"""Which law says how sure a denoiser is: its own, or the one that tokens are drawn from."""

IMPOSSIBLE = -1e4
"""A logit this far below the largest has the probability 0, in float64 too; unlike -inf, 0 times it is 0."""

PILES = 128
"""Into how many piles the columns of a long row are dealt, to find its two largest."""


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
    first_R, second_R = _top_two(p_RV).unbind(-1)
    return first_R - second_R


def log_margin(p_RV: torch.Tensor) -> torch.Tensor:
    """Log-probability of the most likely token minus that of the next, in nats; at most some hundred."""
    if p_RV.shape[-1] == 1:
        return torch.full_like(p_RV[:, 0], -IMPOSSIBLE)
    first_R, second_R = _top_two(p_RV.double()).log().unbind(-1)
    return (first_R - second_R).clamp(max=-IMPOSSIBLE)


def top_probability(p_RV: torch.Tensor) -> torch.Tensor:
    return p_RV.amax(-1)


def _top_two(x_RV: torch.Tensor) -> torch.Tensor:
    """The two largest of each row, the largest first, `(R, 2)`.

    A long row is dealt out to `PILES` piles. The second largest is the largest of another pile, or the second of the
    best pile; the columns that are left over are compared one by one.
    """
    R, V = x_RV.shape
    size = V // PILES
    if size < PILES // 4:
        return x_RV.topk(2, dim=-1).values
    pile_RSP = x_RV[:, : size * PILES].unflatten(1, (size, PILES))
    best_R2, at_R2 = pile_RSP.amax(1).topk(2, dim=-1)
    inside_RS = pile_RSP.gather(2, at_R2[:, None, :1].expand(R, size, 1))[:, :, 0]
    candidates = [best_R2, inside_RS.topk(2, dim=-1).values[:, 1:], x_RV[:, size * PILES :]]
    return torch.cat(candidates, dim=1).topk(2, dim=-1).values


@torch.no_grad()
def of_rows(
    measure: Callable[[torch.Tensor], torch.Tensor],
    logits_BLV: ModelOutput,
    row_R: torch.Tensor,
    position_R: torch.Tensor,
    excluded: int | None,
) -> torch.Tensor:
    """A measure of the laws `softmax(logits)` of chosen rows, float64 of shape `(R,)`; no gradient.

    Rows are read once, a cache-sized chunk at a time, in float32 (float64 logits: in float64). An entropy is off by at
    most 3e-6 of itself and as many nats, at any size of vocabulary up to 2^18; it is never negative, and that of a
    row with one possible token is 0.

    Args:
        measure: one of the functions above, or another that maps laws `(r, V)`, which it must not keep, to `(r,)`.
        logits_BLV, row_R, position_R, excluded: as for [`~lsd_sampler.sampling.logit_rows.row_chunks`].

    Raises:
        ValueError: if a chosen row holds NaN or +inf, or only -inf.
    """
    nothing_R = torch.empty(0, dtype=torch.float64, device=row_R.device)
    maxima, measured = [nothing_R], [nothing_R]
    for x_RV, maximum_R, p_RV in _laws(logits_BLV, row_R, position_R, excluded):
        maxima.append(maximum_R.double())
        value_R = _entropy(x_RV, maximum_R, p_RV) if measure is entropy else measure(p_RV)
        measured.append(value_R.to(torch.float64, copy=True))  # it may be a view of what the next chunk overwrites
    check_row_maximum(torch.cat(maxima))  # once, because a GPU has to be waited for
    return torch.cat(measured)


@torch.no_grad()
def laws(logits_BLV: ModelOutput, row_R: torch.Tensor, position_R: torch.Tensor, excluded: int | None) -> torch.Tensor:
    """The laws `softmax(logits)` of chosen rows themselves, float64 of shape `(R, V)`; no gradient.

    Args:
        logits_BLV, row_R, position_R, excluded: as for [`~lsd_sampler.sampling.logit_rows.row_chunks`].

    Raises:
        ValueError: if a chosen row holds NaN or +inf, or only -inf.
    """
    chunks = [torch.empty(0, logits_BLV.shape[-1], dtype=torch.float64, device=row_R.device)]
    for x_RV in row_chunks(logits_BLV, row_R, position_R, excluded):
        check_row_maximum(x_RV.amax(-1))
        chunks.append(x_RV.double().softmax(-1))
    return torch.cat(chunks)


@torch.no_grad()
def of_tokens(
    logits_BLV: ModelOutput,
    row_R: torch.Tensor,
    position_R: torch.Tensor,
    token_R: torch.Tensor,
    excluded: int | None,
) -> torch.Tensor:
    """Log-probability of a token in each chosen row, by `softmax(logits)`, float64 of shape `(R,)`; no gradient.

    Args:
        logits_BLV, row_R, position_R, excluded: as for [`~lsd_sampler.sampling.logit_rows.row_chunks`].
        token_R (`torch.LongTensor` of shape `(R,)`): the tokens.
    """
    rated, done = [token_R.new_empty(0, dtype=torch.float64)], 0
    for x_RV, maximum_R, p_RV in _laws(logits_BLV, row_R, position_R, excluded):
        token_r, done = token_R[done : done + len(x_RV)], done + len(x_RV)
        surprise_R = maximum_R - x_RV.gather(1, token_r[:, None])[:, 0]
        rated.append(-(surprise_R + _log_mass(p_RV)[1]).double())
    return torch.cat(rated)


def _laws(
    logits_BLV: ModelOutput, row_R: torch.Tensor, position_R: torch.Tensor, excluded: int | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Chunks of chosen rows, their largest logits, and `softmax(logits)`; a chunk overwrites the one before."""
    memory_RV = None
    for x_RV in row_chunks(logits_BLV, row_R, position_R, excluded, reuse=True):
        memory_RV = torch.empty_like(x_RV) if memory_RV is None else memory_RV
        yield x_RV, x_RV.amax(-1), torch.softmax(x_RV, -1, out=memory_RV[: len(x_RV)])


def _log_mass(p_RV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What each row sums to, and `log sum_v exp(x_v - max x)` of its logits x. Both `(R,)`.

    On CPU a softmax in float32 sums to 1 within 1e-4 only, if the vocabulary is large. Nothing here depends on that.
    """
    total_R = p_RV.sum(-1)
    return total_R, (total_R / p_RV.amax(-1)).log()


def _entropy(x_RV: torch.Tensor, maximum_R: torch.Tensor, p_RV: torch.Tensor) -> torch.Tensor:
    """Entropy of each row, `log Z - sum_v p_v (x_v - max x)` with `Z = sum_v exp(x_v - max x)`; `x_RV` is overwritten.

    On CPU the logarithms that the textbook's formula takes cost more than all the rest. On a GPU every read of the
    rows costs the same, and this one has more of them.
    """
    if x_RV.device.type != "cpu":
        return torch.special.entr(p_RV, out=x_RV).sum(-1)
    total_R, log_mass_R = _log_mass(p_RV)
    lag_RV = x_RV.sub_(maximum_R[:, None]).clamp_(min=IMPOSSIBLE)
    return (log_mass_R - lag_RV.mul_(p_RV).sum(-1) / total_R).clamp(min=0)


def ranks(score_BL: torch.Tensor) -> torch.Tensor:
    """Place of each position in its row, the highest score first, from 0; of equal scores the leftmost first."""
    return score_BL.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
