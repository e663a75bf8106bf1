"""How strongly the tokens of two positions depend on each other, as learned for a model.

Shape suffixes: B batch, L positions, P positions with a margin, K buckets of the known share, Y rows, X columns, W
positions that depend on one.
"""

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch

from ..support.validation import check_float


LAYOUTS = ("matrix", "offset", "offset_2d")
_MOST_CANVASES = 8
"""Kinds of canvases for which kappa is kept as it is looked up."""


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
    _on: dict[Any, "CanvasDependence"] = field(default_factory=dict, init=False, repr=False)

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
        """The dependence between the positions of a canvas. It is made once for each shape and device.

        Args:
            shape: `(seq_len,)` or `(height, width)`.
            device: where it is needed.

        Raises:
            ValueError: if it was learned for another kind of canvas.
        """
        key = tuple(shape), device
        if key not in self._on:
            self._check_shape(shape)
            if len(self._on) >= _MOST_CANVASES:
                self._on.clear()
            self._on[key] = self._made(shape, device)
        return self._on[key]

    def _made(self, shape: tuple[int, ...], device: torch.device) -> "CanvasDependence":
        if self.layout == "matrix":
            return MatrixDependence(self.kappa.to(device))
        if self.layout == "offset":
            return OffsetDependence(self.kappa[:, None], (1, *shape), device)
        return OffsetDependence(self.kappa, shape, device)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        learned, L = self.kappa.shape[1], math.prod(shape)
        if self.layout == "matrix" and learned != L:
            raise ValueError(
                f"This sampler was learned for canvases of {learned} positions, this one has {L}: distil it again for"
                " this length."
            )
        if self.layout == "offset_2d" and len(shape) != 2:
            raise ValueError(
                f"This sampler was learned for images of rows and columns, this canvas has the shape {shape}: distil"
                " it again for texts."
            )
        if self.layout == "offset" and len(shape) != 1:
            raise ValueError(
                f"This sampler was learned for texts, this canvas has the shape {shape}: distil it again for images."
            )


class CanvasDependence(ABC):
    """The dependence between all positions of one kind of canvas, so laid out that what depends on one position is
    found at once.
    """

    @abstractmethod
    def laid_out(self, value_BL: torch.Tensor, elsewhere: float) -> torch.Tensor:
        """A copy of a value of each position, with the margin that [`near`] needs. `(B, P)`."""

    @abstractmethod
    def taken_back(self, value_BP: torch.Tensor) -> torch.Tensor:
        """The same without the margin. `(B, L)`."""

    @abstractmethod
    def near(self, place_B1: torch.Tensor, bucket_B: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        """What depends on one position of each canvas, and how much.

        Args:
            place_B1 (`torch.LongTensor` of shape `(batch_size, 1)`): the position, in the layout with a margin.
            bucket_B (`torch.LongTensor` of shape `(batch_size,)`): from [`Dependence.bucket`].

        Returns:
            places in that layout, `(B, W)`, or None for all; and kappa, `(B, W)`.
        """

    @abstractmethod
    def gain(self, entropy_BL: torch.Tensor, bucket_B: torch.Tensor) -> torch.Tensor:
        """What revealing each position would tell about the others: `sum_l kappa_il min(H_i, H_l)`, nats. `(B, L)`.

        Args:
            entropy_BL (`torch.DoubleTensor` of shape `(batch_size, seq_len)`): H; 0 where nothing is to be told.
            bucket_B (`torch.LongTensor` of shape `(batch_size,)`): from [`Dependence.bucket`].
        """


class MatrixDependence(CanvasDependence):
    """A matrix for each bucket, `(K, L, L)`. There is no margin."""

    def __init__(self, kappa_KLL: torch.Tensor):
        L = kappa_KLL.shape[1]
        self.kappa_KLL = kappa_KLL.masked_fill(torch.eye(L, dtype=torch.bool, device=kappa_KLL.device), 0)

    def laid_out(self, value_BL: torch.Tensor, elsewhere: float) -> torch.Tensor:
        return value_BL.clone()

    def taken_back(self, value_BP: torch.Tensor) -> torch.Tensor:
        return value_BP

    def near(self, place_B1: torch.Tensor, bucket_B: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        return None, self.kappa_KLL[bucket_B, place_B1[:, 0]]

    def gain(self, entropy_BL: torch.Tensor, bucket_B: torch.Tensor) -> torch.Tensor:
        size = max(1, 2**22 // entropy_BL.shape[1] ** 2)  # canvases at a time
        parts = [torch.empty_like(entropy_BL[:0])]
        for H_bL, bucket_b in zip(entropy_BL.split(size), bucket_B.split(size), strict=True):
            shared_bLL = torch.minimum(H_bL[:, :, None], H_bL[:, None, :])
            parts.append(shared_bLL.mul_(self.kappa_KLL[bucket_b]).sum(2))
        return torch.cat(parts)


class OffsetDependence(CanvasDependence):
    """A number for each distance in rows and in columns. A text is an image of one row.

    Only a window around a position depends on it. Where the window would be larger than the canvas, the whole canvas
    is looked up instead, and there is no margin.

    Args:
        kappa_KYX (`torch.DoubleTensor` of shape `(num_buckets, rows, columns)`): by distance; 0 beyond.
        shape: height and width of the canvas.
        device: where it is needed.
    """

    def __init__(self, kappa_KYX: torch.Tensor, shape: tuple[int, ...], device: torch.device):
        (height, width), kappa_KYX = shape, kappa_KYX[:, : shape[0], : shape[1]]
        reach = [_last_used(kappa_KYX.amax((0, 3 - axis))) for axis in (1, 2)]
        self.is_local = math.prod(2 * r + 1 for r in reach) < height * width
        self.shape, self.reach = (height, width), reach if self.is_local else [height - 1, width - 1]
        self.margin = self.reach if self.is_local else [0, 0]
        self.window_KYX = _mirrored(kappa_KYX, self.reach).to(device)
        self.kappa_KW = self.window_KYX.flatten(1)
        if self.is_local:
            self.place_W = _places([range(-r, r + 1) for r in self.reach], self._width).to(device)
        else:
            self.place_L = _places([range(height), range(width)], 2 * width - 1).to(device)

    @property
    def _width(self) -> int:
        """Of a row with its margins."""
        return self.shape[1] + 2 * self.margin[1]

    def laid_out(self, value_BL: torch.Tensor, elsewhere: float) -> torch.Tensor:
        if not self.is_local:
            return value_BL.clone()
        return self._padded(value_BL, elsewhere).flatten(1)

    def taken_back(self, value_BP: torch.Tensor) -> torch.Tensor:
        if not self.is_local:
            return value_BP
        (height, width), (above, left) = self.shape, self.margin
        value_BYX = value_BP.view(len(value_BP), -1, self._width)
        return value_BYX[:, above : above + height, left : left + width].flatten(1)

    def near(self, place_B1: torch.Tensor, bucket_B: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        if self.is_local:
            first = self.margin[0] * self._width + self.margin[1]  # a canvas without any left has the place 0
            return place_B1.clamp(min=first) + self.place_W, self.kappa_KW[bucket_B]
        num_offsets = self.kappa_KW.shape[1]
        start_B1 = bucket_B[:, None] * num_offsets + num_offsets // 2 - self.place_L[place_B1]
        return None, self.kappa_KW.take(self.place_L + start_B1)

    def gain(self, entropy_BL: torch.Tensor, bucket_B: torch.Tensor) -> torch.Tensor:
        (height, width), B = self.shape, len(entropy_BL)
        H_BYX, kappa_BYX = entropy_BL.reshape(B, height, width), self.window_KYX[bucket_B]
        gain_BYX, shared_BYX = torch.zeros_like(H_BYX), torch.empty_like(H_BYX)
        padded = self._padded(entropy_BL, 0.0, self.reach)
        for y, x in itertools.product(*(range(2 * r + 1) for r in self.reach)):
            torch.minimum(padded[:, y : y + height, x : x + width], H_BYX, out=shared_BYX)
            gain_BYX.addcmul_(shared_BYX, kappa_BYX[:, y, x, None, None])
        return gain_BYX.flatten(1)

    def _padded(self, value_BL: torch.Tensor, elsewhere: float, margin: list[int] | None = None) -> torch.Tensor:
        y, x = self.margin if margin is None else margin
        return torch.nn.functional.pad(value_BL.reshape(len(value_BL), *self.shape), (x, x, y, y), value=elsewhere)


def _last_used(kappa_D: torch.Tensor) -> int:
    """The last index at which there is anything."""
    used = kappa_D.nonzero()
    return int(used.max()) if len(used) else 0


def _mirrored(kappa_KYX: torch.Tensor, reach: list[int]) -> torch.Tensor:
    """Kappa by signed offset; 0 where none was learned, and of a position with itself. `(K, 2 reach + 1, ...)`."""
    missing = [max(0, r + 1 - size) for r, size in zip(reach, kappa_KYX.shape[1:], strict=True)]
    known_KYX = torch.nn.functional.pad(kappa_KYX, (0, missing[1], 0, missing[0]))
    y, x = (torch.arange(-r, r + 1).abs() for r in reach)
    window_KYX = known_KYX[:, y][:, :, x]
    window_KYX[:, reach[0], reach[1]] = 0
    return window_KYX


def _places(axes: list[range], width: int) -> torch.Tensor:
    """The place of each pair of row and column, where a row takes up this width."""
    y, x = (torch.tensor(axis) for axis in axes)
    return (y[:, None] * width + x).flatten()
