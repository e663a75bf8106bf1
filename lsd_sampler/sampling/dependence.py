"""How strongly the tokens of two positions depend on each other, as learned for a model.

Shape suffixes: B batch, L positions, K buckets of the known share, D offsets.
"""

import functools
import math
from dataclasses import dataclass

import torch

from ..support.validation import check_float


LAYOUTS = ("matrix", "offset", "offset_2d")


@dataclass(frozen=True, eq=False)
class Dependence:
    """Kappa: the uncertainty that revealing one position takes away from another, as a share of the smaller of their
    two entropies, in [0, 1]. It is symmetric, and depends on how much of the canvas is known.

    Args:
        kappa (`torch.DoubleTensor`): of shape `(num_buckets, seq_len, seq_len)` for `"matrix"`, where each position
            has a meaning of its own; `(num_buckets, num_offsets)` for `"offset"`, by distance from 0 on; or
            `(num_buckets, rows, columns)` for `"offset_2d"`, by distance in rows and in columns. It is 0 beyond.
        layout (`str`): one of `LAYOUTS`.
    """

    kappa: torch.Tensor
    layout: str

    def check(self, where: str) -> None:
        """Raises `ValueError`, naming `where` and the key, unless all numbers are usable."""
        key, shape = f"{where}: kappa.{self.layout}", tuple(self.kappa.shape)
        if self.layout not in LAYOUTS:
            raise ValueError(f"{key} must be one of {[f'kappa.{layout}' for layout in LAYOUTS]}.")
        if len(shape) != (2 if self.layout == "offset" else 3) or 0 in shape:
            raise ValueError(f"{key} has a wrong number of axes, or none of some: {shape}.")
        check_float(self.kappa, key)
        low, high = (float(bound) for bound in self.kappa.aminmax())
        if low < 0 or high > 1:
            raise ValueError(f"{key} must lie in [0, 1], got {low if low < 0 else high}.")
        if self.layout == "matrix" and not (shape[1] == shape[2] and bool(torch.equal(self.kappa, self.kappa.mT))):
            raise ValueError(f"{key} must be symmetric, of shape (num_buckets, seq_len, seq_len), got {shape}.")

    @property
    def num_buckets(self) -> int:
        """Into how many parts the share of the canvas that is known is divided."""
        return len(self.kappa)

    def bucket(self, masked_BL: torch.Tensor) -> torch.Tensor:
        """The bucket of each canvas, by the share of it that is known. `(B,)`."""
        known_B, L = (~masked_BL).sum(1), masked_BL.shape[1]
        return (known_B * self.num_buckets // L).clamp(max=self.num_buckets - 1)

    def on(self, shape: tuple[int, ...], device: torch.device) -> "CanvasDependence":
        """The dependence of positions of a canvas.

        Args:
            shape: `(seq_len,)` or `(height, width)`.
            device: where it is needed.

        Raises:
            ValueError: if it was learned for another kind of canvas.
        """
        L = math.prod(shape)
        if self.layout == "matrix" and self.kappa.shape[1] != L:
            raise ValueError(
                f"This sampler was learned for canvases of {self.kappa.shape[1]} positions, this one has {L}: distil"
                " it again for this length."
            )
        if self.layout == "offset_2d" and len(shape) != 2:
            raise ValueError(
                f"This sampler was learned for images of rows and columns, this canvas has the shape {shape}: distil"
                " it again for texts."
            )
        if self.layout == "offset":
            return OffsetDependence(_padded(self.kappa, (L,)).to(device))
        return MatrixDependence(_matrix(self, shape).to(device))


class CanvasDependence:
    """The dependence between all positions of one kind of canvas."""

    def of(self, position_B: torch.Tensor, bucket_B: torch.Tensor) -> torch.Tensor:
        """The dependence of every position on one position of its row. `(B, L)`."""
        raise NotImplementedError

    def gain(self, entropy_BL: torch.Tensor, bucket_B: torch.Tensor) -> torch.Tensor:
        """What revealing each position would tell about the others: `sum_l kappa_il min(H_i, H_l)`, nats. `(B, L)`.

        Args:
            entropy_BL (`torch.DoubleTensor` of shape `(batch_size, seq_len)`): H; 0 where nothing is to be told.
            bucket_B (`torch.LongTensor` of shape `(batch_size,)`): from [`Dependence.bucket`].
        """
        raise NotImplementedError


class MatrixDependence(CanvasDependence):
    """A matrix for each bucket, `(K, L, L)`."""

    def __init__(self, kappa_KLL: torch.Tensor):
        self.kappa_KLL = kappa_KLL

    def of(self, position_B: torch.Tensor, bucket_B: torch.Tensor) -> torch.Tensor:
        return self.kappa_KLL[bucket_B, position_B]

    def gain(self, entropy_BL: torch.Tensor, bucket_B: torch.Tensor) -> torch.Tensor:
        L = entropy_BL.shape[1]
        size = max(1, 2**22 // L**2)  # canvases at a time
        parts = []
        for H_bL, bucket_b in zip(entropy_BL.split(size), bucket_B.split(size), strict=True):
            shared_bLL = torch.minimum(H_bL[:, :, None], H_bL[:, None, :])
            parts.append(shared_bLL.mul_(self.kappa_KLL[bucket_b]).sum(2))
        return torch.cat(parts)


class OffsetDependence(CanvasDependence):
    """A number for each distance, `(K, L)`."""

    def __init__(self, kappa_KL: torch.Tensor):
        self.kappa_KL = kappa_KL
        reach = (kappa_KL > 0).any(0).nonzero()
        self.reach = int(reach.max()) if len(reach) else 0
        self.place_L = torch.arange(kappa_KL.shape[1], device=kappa_KL.device)

    def of(self, position_B: torch.Tensor, bucket_B: torch.Tensor) -> torch.Tensor:
        return self.kappa_KL[bucket_B[:, None], (self.place_L - position_B[:, None]).abs()]

    def gain(self, entropy_BL: torch.Tensor, bucket_B: torch.Tensor) -> torch.Tensor:
        H_BL, gain_BL, kappa_BL = entropy_BL, torch.zeros_like(entropy_BL), self.kappa_KL[bucket_B]
        for d in range(1, self.reach + 1):
            told_Bl = torch.minimum(H_BL[:, d:], H_BL[:, :-d]) * kappa_BL[:, d, None]
            gain_BL[:, d:] += told_Bl
            gain_BL[:, :-d] += told_Bl
        return gain_BL


def _padded(kappa_KD: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Kappa by offset, for all offsets that a canvas has; 0 where none was learned."""
    kept = kappa_KD[(slice(None), *(slice(size) for size in shape))]
    out = kappa_KD.new_zeros(len(kappa_KD), *shape)
    out[(slice(None), *(slice(size) for size in kept.shape[1:]))] = kept
    return out


@functools.lru_cache(maxsize=4)
def _matrix(dependence: Dependence, shape: tuple[int, ...]) -> torch.Tensor:
    """Kappa of each pair of positions, `(K, L, L)`; 0 of a position with itself."""
    if dependence.layout == "matrix":
        return dependence.kappa
    row_L, column_L = (axis.flatten() for axis in torch.meshgrid(*map(torch.arange, shape), indexing="ij"))
    rows_LL, columns_LL = ((x[:, None] - x).abs() for x in (row_L, column_L))
    matrix = _padded(dependence.kappa, shape)[:, rows_LL, columns_LL]
    return matrix.masked_fill_(torch.eye(len(row_L), dtype=torch.bool), 0)
