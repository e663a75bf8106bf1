"""Isotonic regression."""

import torch


def isotonic_decreasing(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The non-increasing sequence nearest in weighted least squares (pool adjacent violators). 1-D tensors."""
    blocks: list[list[float]] = []  # value, weight, length
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        blocks.append([value, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
            v2, w2, n2 = blocks.pop()
            v1, w1, n1 = blocks.pop()
            blocks.append([(v1 * w1 + v2 * w2) / (w1 + w2), w1 + w2, n1 + n2])
    return torch.tensor([v for v, _, n in blocks for _ in range(int(n))], dtype=values.dtype)
