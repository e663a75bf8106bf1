"""Random draws: the only module that handles generators, devices and precision.

Uniforms are float64 and drawn on the generator's device, then moved, so a CPU seed gives the same tokens on any
device. Tokens are drawn by inverse CDF, accumulated in float64: a token of probability p owns an interval of length p
of the uniform, however small p is. (Gumbel or exponential noise in float32 has a truncated tail, which lowers the
effective temperature.)
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from .logit_rows import ModelOutput, check_row_maximum, row_chunks


Generators = torch.Generator | list[torch.Generator] | None

BLOCK = 256
"""Tokens per block of the two-level search in [`draw_tokens`]."""


def row_generators(seed: int, rows: Iterable[int], *stream: int) -> list[torch.Generator]:
    """Fresh CPU generators. The one of row i depends on `(seed, i)` alone, whatever the batch size.

    Args:
        seed (`int`), rows (`Iterable[int]`): at least 0.
        stream (`int`): other numbers, other generators.

    Raises:
        ValueError: for a negative seed.
    """
    if seed < 0:
        raise ValueError(f"`seed` must be an integer >= 0, got {seed}.")
    # hashed to 32 bits: torch's CPU generator ignores the upper half of its seed
    seeds = [np.random.SeedSequence(seed, spawn_key=(*stream, i)).generate_state(1)[0] for i in rows]
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def check_generators(generator: Any) -> None:
    """Raises `ValueError` unless this is a generator, a list of them, or None."""
    several = generator if isinstance(generator, list | tuple) else [generator]
    if generator is not None and not all(isinstance(g, torch.Generator) for g in several):
        raise ValueError(
            f"`generator` must be a torch.Generator, a list of them, or None, got {generator!r}: make one with"
            " `torch.Generator().manual_seed(0)`."
        )


def draw_uniforms(batch_size: int, num: int, generator: Generators, device: torch.device) -> torch.Tensor:
    """Uniforms in [0, 1), `torch.DoubleTensor` of shape `(batch_size, num)`; with a list, row i comes from generator
    i.

    Raises:
        ValueError: if a list of generators has not one entry per row, or `generator` is something else.
    """
    check_generators(generator)
    if isinstance(generator, (list, tuple)):
        if len(generator) != batch_size:
            raise ValueError(f"`generator` has {len(generator)} entries, but the batch has {batch_size} rows.")
        rows = [torch.rand(num, generator=g, dtype=torch.float64, device=g.device).to(device) for g in generator]
        return torch.stack(rows)
    source = device if generator is None else generator.device
    return torch.rand(batch_size, num, generator=generator, dtype=torch.float64, device=source).to(device)


def gumbel(uniforms: torch.Tensor) -> torch.Tensor:
    """Gumbel noise from float64 uniforms in [0, 1)."""
    return -torch.log(-torch.log(uniforms.clamp(min=torch.finfo(uniforms.dtype).tiny)))


def _search(w_RV: torch.Tensor, v_R: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Index `j` with `sum_{i<j} w_i <= v sum_i w_i < sum_{i<=j} w_i` in each row, and the row's sum. `w_RV` is
    float64.
    """
    cumulative_RV = w_RV.cumsum(-1)
    total_R1 = cumulative_RV[:, -1:]
    target_R1 = torch.minimum(v_R[:, None] * total_R1, torch.nextafter(total_R1, total_R1.new_zeros(())))
    index_R = torch.searchsorted(cumulative_RV, target_R1, right=True)[:, 0]
    return index_R.clamp_(max=w_RV.shape[1] - 1), total_R1[:, 0]  # NaN, which is reported later, is past the end


def inverse_cdf(weight_RV: torch.Tensor, v_R: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The token of each row at which the cumulative weight passes `v` of the row's sum, and that sum. `(R,)` both.

    A two-level search: first among blocks of tokens, then inside one block; all sums in float64.
    """
    R, V = weight_RV.shape
    if V <= 4 * BLOCK:
        return _search(weight_RV.double(), v_R)
    num_blocks = -(-V // BLOCK)
    padded = weight_RV.new_empty(R, num_blocks * BLOCK, dtype=torch.float64)
    padded[:, :V] = weight_RV
    padded[:, V:] = 0
    blocks = padded.view(R, num_blocks, BLOCK)
    sums = blocks.sum(-1)
    block_R, total_R = _search(sums, v_R)
    # v of the whole row, as a fraction of the chosen block
    before_R = (sums.cumsum(-1) - sums).gather(1, block_R[:, None])[:, 0]
    chosen = blocks[torch.arange(R, device=block_R.device), block_R]
    inside_R = ((v_R * total_R - before_R) / chosen.sum(-1)).clamp(0, 1)
    index_R, _ = _search(chosen, inside_R)
    return block_R * BLOCK + index_R, total_R


def keep_likely(
    weight_RV: torch.Tensor, top_p: float | None, top_k: int | None, *, keeps_crossing: bool = True
) -> None:
    """Sets the weights of unlikely tokens to 0, in place. Each row keeps the `top_k` largest (and ties), and of these
    the fewest that hold more than a share `top_p` of their sum. Without `keeps_crossing`, the last of these is dropped
    too, so that the others, or the largest alone, hold at most `top_p`.
    """
    if top_k is not None and 0 < top_k < weight_RV.shape[1]:
        weight_RV.masked_fill_(weight_RV < weight_RV.topk(top_k, dim=-1).values[:, -1:], 0)
    if top_p is not None and top_p < 1:
        sorted_RV, index_RV = weight_RV.double().sort(dim=-1, descending=True, stable=True)
        held_RV = sorted_RV.cumsum(-1)
        if keeps_crossing:
            held_RV -= sorted_RV
        dropped_RV = held_RV > top_p * sorted_RV.sum(-1, keepdim=True)
        dropped_RV[:, 0] = False
        weight_RV.masked_fill_(torch.zeros_like(dropped_RV).scatter_(1, index_RV, dropped_RV), 0)


@torch.no_grad()
def draw_tokens(
    logits_BLV: ModelOutput,
    row_R: torch.Tensor,
    position_R: torch.Tensor,
    v_R: torch.Tensor,
    *,
    inverse_temperature: float = 1.0,
    top_p: float | None = None,
    top_k: int | None = None,
    keeps_crossing: bool = True,
    excluded: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws one token for each of R chosen rows: the inverse CDF of `softmax(inverse_temperature * logits)` at `v`.

    Only the chosen rows are read, a cache-sized chunk at a time.

    Args:
        logits_BLV, row_R, position_R, excluded: as for [`~lsd_sampler.sampling.logit_rows.row_chunks`].
        v_R (`torch.DoubleTensor` of shape `(R,)`): uniforms in [0, 1).
        inverse_temperature (`float`): `inf` takes the most likely token.
        top_p, top_k, keeps_crossing (*optional*): as in [`keep_likely`]; without effect if the most likely token is
            taken.

    Returns:
        the tokens `(R,)`, and the natural log of the probability with which each was drawn, `(R,)` float64. (If
        `inverse_temperature` is `inf`, the probability is that at 1, which tells confident tokens from others.)

    Raises:
        ValueError: if a chosen row holds NaN or +inf, or only -inf.
    """
    tokens, log_probs, maxima, done = [], [], [], 0
    for x_RV in row_chunks(logits_BLV, row_R, position_R, excluded, reuse=True):
        v, done = v_R[done : done + len(x_RV)], done + len(x_RV)
        maximum_R = x_RV.amax(-1)
        maxima.append(maximum_R)
        if inverse_temperature == float("inf"):
            tokens.append(x_RV.argmax(-1))
            log_probs.append(maximum_R.double() - x_RV.logsumexp(-1).double())
            continue
        if inverse_temperature == 0:  # uniform over possible tokens; 0 * -inf would be NaN
            weight_RV = (x_RV > -torch.inf).to(x_RV.dtype)
        else:
            weight_RV = x_RV.sub_(maximum_R[:, None])
            weight_RV = (weight_RV if inverse_temperature == 1 else weight_RV.mul_(inverse_temperature)).exp_()
        keep_likely(weight_RV, top_p, top_k, keeps_crossing=keeps_crossing)
        token_R, total_R = inverse_cdf(weight_RV, v)
        tokens.append(token_R)
        log_probs.append(weight_RV.gather(1, token_R[:, None])[:, 0].double().log() - total_R.log())
    if not tokens:
        return row_R.clone(), v_R.clone()
    check_row_maximum(torch.cat(maxima))  # once, because a GPU has to be waited for
    return torch.cat(tokens), torch.cat(log_probs)


@torch.no_grad()
def log_mass(
    logits_BLV: ModelOutput,
    row_R: torch.Tensor,
    position_R: torch.Tensor,
    *,
    inverse_temperature: float = 1.0,
    excluded: int | None = None,
) -> torch.Tensor:
    """`logsumexp(inverse_temperature * logits)` of the chosen rows, float64 of shape `(R,)`, in chunks."""
    nothing_R = torch.empty(0, dtype=torch.float64, device=row_R.device)
    out, maxima = [nothing_R], [nothing_R]
    for x_RV in row_chunks(logits_BLV, row_R, position_R, excluded, reuse=True):
        maximum_R = x_RV.amax(-1)
        maxima.append(maximum_R.double())
        if inverse_temperature:
            total_R = x_RV.sub_(maximum_R[:, None]).mul_(inverse_temperature).exp_().sum(-1)
        else:
            total_R = (x_RV > -torch.inf).float().sum(-1)
        out.append(total_R.double().log() + inverse_temperature * maximum_R.double())
    check_row_maximum(torch.cat(maxima))
    return torch.cat(out)
