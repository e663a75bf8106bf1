import functools
import math

import torch
from torch.quasirandom import SobolEngine

from .base import Order


@functools.lru_cache(maxsize=32)
def _sobol_points(canvas_shape: tuple[int, ...]) -> torch.Tensor:
    """Enough points of the unscrambled Sobol sequence to visit every cell of the canvas, under any shift. `(N, d)`.

    A cell of width 1/n contains a dyadic interval of width 2^-ceil(log2 2n), wherever it is shifted to. The
    corresponding net in base 2 hits each product of such intervals exactly once.
    """
    log2_points = sum(math.ceil(math.log2(2 * n)) for n in canvas_shape)
    return SobolEngine(len(canvas_shape)).draw(2**log2_points, dtype=torch.float64)


class HaltonOrder(Order):
    """Low-discrepancy order in 1-D (text) or 2-D (images): tokens revealed together lie far apart.

    A randomly shifted Sobol sequence visits the cells of the canvas in this order. It follows Halton-MaskGIT
    (https://huggingface.co/papers/2503.17076), with Sobol points in place of Halton's. In 1-D both are
    van der Corput's sequence in base 2, here in Gray-code order (the first 2^k points are the same ones).
    """

    name = "halton"

    def keys(self, u_BL: torch.Tensor, shift_B2: torch.Tensor, canvas_shape: tuple[int, ...]) -> torch.Tensor:
        B, L = u_BL.shape
        points_ND = _sobol_points(tuple(canvas_shape)).to(u_BL.device)
        N, D = points_ND.shape
        cell_BN = torch.zeros(B, N, dtype=torch.long, device=u_BL.device)
        for axis, size in enumerate(canvas_shape):
            moved_BN = (points_ND[:, axis] + shift_B2[:, axis, None]) % 1
            cell_BN = cell_BN * size + (moved_BN * size).long().clamp(max=size - 1)
        visit_BN = torch.arange(N, device=u_BL.device).expand(B, N)
        first_BL = torch.full((B, L), N, device=u_BL.device).scatter_reduce(1, cell_BN, visit_BN, "amin")
        return first_BL.double()
