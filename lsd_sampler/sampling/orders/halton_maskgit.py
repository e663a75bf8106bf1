import functools
import math

import torch

from .base import Order


@functools.lru_cache(maxsize=32)
def _place_in_order(canvas_shape: tuple[int, ...]) -> torch.Tensor:
    """Place of each cell in the order in which the Halton points 1, 2, ... first visit them. `(L,)`, int64."""
    bases = (2, 3)[: len(canvas_shape)]
    # A cell of width 1/n contains an interval [i b^-k, (i + 1) b^-k] with b^k >= 2n. N consecutive points hit each of
    # the N products of such intervals once.
    N = math.prod(base ** _num_digits(base, 2 * n) for base, n in zip(bases, canvas_shape, strict=True))
    cell_N = torch.zeros(N, dtype=torch.int64)
    for base, n in zip(bases, canvas_shape, strict=True):
        numerator_N, denominator = _radical_inverses(base, N)
        cell_N = cell_N * n + n * numerator_N // denominator
    first_L = torch.full((math.prod(canvas_shape),), N).scatter_reduce(0, cell_N, torch.arange(N), "amin")
    return first_L.argsort().argsort()


def _radical_inverses(base: int, num: int) -> tuple[torch.Tensor, int]:
    """Radical inverses of 1, ..., num in this base, as numerators and a common denominator."""
    index_N = torch.arange(1, num + 1)
    numerator_N = torch.zeros_like(index_N)
    num_digits = _num_digits(base, num + 1)
    for _ in range(num_digits):
        numerator_N = numerator_N * base + index_N % base
        index_N = index_N // base
    return numerator_N, base**num_digits


def _num_digits(base: int, number: int) -> int:
    """The smallest k with `base^k >= number`."""
    k = 0
    while base**k < number:
        k += 1
    return k


class HaltonMaskGITOrder(Order):
    """The order of Halton-MaskGIT's own sampler (https://huggingface.co/papers/2503.17076) on images: first visits of
    the Halton sequence in bases 2 (rows) and 3 (columns), turned by a random number of places for each sample (its
    `randomize`).

    On text it is van der Corput's sequence in base 2. All samples share one order and differ only in where it begins.
    `halton` shifts the points instead, so that tokens revealed together lie far apart under any shift.
    """

    name = "halton_maskgit"

    def keys(self, u_BL: torch.Tensor, shift_B2: torch.Tensor, canvas_shape: tuple[int, ...]) -> torch.Tensor:
        L = u_BL.shape[1]
        place_L = _place_in_order(tuple(canvas_shape)).to(u_BL.device)
        turn_B = (shift_B2[:, 0] * L).long()
        return ((place_L + turn_B[:, None]) % L).double()
