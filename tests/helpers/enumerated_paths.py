"""What forcing a sampler along a sequence costs, by enumeration: textbook formulas for tiny exact chains."""

import itertools
from collections.abc import Callable

import torch

from lsd_sampler.denoisers import MarkovDenoiser
from lsd_sampler.sampling.learned_numbers import LearnedSteps
from lsd_sampler.sampling.orders import ORDERS


def all_sequences(chain: MarkovDenoiser) -> tuple[torch.Tensor, torch.Tensor]:
    """Every sequence, and its probability."""
    sequences = torch.tensor(list(itertools.product(range(chain.vocab_size), repeat=chain.length)))
    law = chain.initial[sequences[:, 0]] * chain.transition[sequences[:, :-1], sequences[:, 1:]].prod(1)
    return sequences, law


def orders_of_revealing(order: str, length: int) -> list[tuple[int, ...]]:
    """Permutations (rank -> position), each as often as it is likely."""
    if order == "random":
        return list(itertools.permutations(range(length)))
    # shifts at the centres of cells finer than any at which the order changes
    shifts = (torch.arange(256, dtype=torch.float64) + 0.5) / 256
    keys = ORDERS[order].keys(torch.zeros(256, length), torch.stack([shifts, shifts], dim=1), (length,))
    return [tuple(row) for row in keys.argsort(dim=1).tolist()]


def nats_of(
    chain: MarkovDenoiser, x_BL: torch.Tensor, known: set[int], revealed: set[int], beta: float
) -> torch.Tensor:
    """`-log softmax(beta log p)[x]` of what is revealed, given what is known, of each sequence."""
    hidden = [i for i in range(chain.length) if i not in known]
    canvas_BL = x_BL.index_fill(1, torch.tensor(hidden), chain.mask_token_id)
    log_p_BLV = (beta * chain(canvas_BL)).log_softmax(-1)
    return -log_p_BLV.gather(2, x_BL[..., None])[:, sorted(revealed), 0].sum(1)


def nats_in_order(
    chain: MarkovDenoiser, x_BL: torch.Tensor, order: str, counts: list[int], betas: list[float]
) -> torch.Tensor:
    """With exact counts: `counts` tokens are known before each step and at the end. Mean over the order. `(B,)`."""
    permutations = orders_of_revealing(order, chain.length)
    total_B = torch.zeros(len(x_BL), dtype=torch.float64)
    for permutation in set(permutations):
        for start, end, beta in zip(counts, counts[1:], betas, strict=False):
            nats_B = nats_of(chain, x_BL, set(permutation[:start]), set(permutation[start:end]), beta)
            total_B += nats_B * permutations.count(permutation) / len(permutations)
    return total_B


def nats_by_jumps(
    chain: MarkovDenoiser, x_L: torch.Tensor, steps: LearnedSteps, jump: Callable[[torch.Tensor, int], torch.Tensor]
) -> float:
    """With Bernoulli counts: `jump(canvas, k)` is the probability with which each masked position is revealed in step
    k. Mean over what is revealed when.
    """
    M = len(steps.score_coefficients)

    def from_here(known: frozenset[int], k: int) -> float:
        hidden = [i for i in range(chain.length) if i not in known]
        if not hidden:
            return 0.0
        canvas_L = x_L.index_fill(0, torch.tensor(hidden), chain.mask_token_id)
        jump_L = torch.ones(chain.length) if k == M - 1 else jump(canvas_L, k)
        total = 0.0
        for size in range(len(hidden) + 1):
            for revealed in itertools.combinations(hidden, size):
                p = float(torch.stack([jump_L[i] if i in revealed else 1 - jump_L[i] for i in hidden]).prod())
                if p:
                    beta = float(steps.log_score_coefficients[k])
                    nats = float(nats_of(chain, x_L[None], set(known), set(revealed), beta))
                    total += p * (nats + from_here(known | set(revealed), k + 1))
        return total

    return from_here(frozenset(), 0)
