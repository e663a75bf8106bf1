"""How the fills of partly given canvases vary: two fills of one canvas, and a fill beside the truth.

A canvas is a sequence x of the true law with some positions masked. Their choice may depend on anything but x at these
positions. Given the canvas, x is then a draw from the exact posterior. An exact fill is another, independent draw, so
two exact fills differ at as many masked positions as a fill and x do, on average. Fills that differ less have lost
variety. They may be right or wrong.
"""

import torch


def two_fill_disagreement(fills: torch.Tensor, other_fills: torch.Tensor, masked: torch.Tensor) -> float:
    """Share of the masked positions at which two fills of the same canvases differ; or fills and the truth.

    Args:
        fills, other_fills (`torch.LongTensor` of shape `(num_canvases, length)`): row i of both is a fill of canvas
            i, by independent draws.
        masked (`torch.BoolTensor` of shape `(num_canvases, length)`): the positions that were to be filled in.

    Returns:
        the share over all masked positions together, in [0, 1].

    Raises:
        ValueError: if the shapes differ, or nothing is masked.
    """
    differ_N, masked_N = differing(fills, other_fills, masked)
    if not masked_N.sum():
        raise ValueError("`masked` must hold a position that was to be filled in, got none.")
    return float(differ_N.sum() / masked_N.sum())


def differing(
    fills: torch.Tensor, other_fills: torch.Tensor, masked: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The parts of [`two_fill_disagreement`] for each canvas: at how many masked positions two fills of it differ, and
    how many it has. Two `torch.DoubleTensor`s of shape `(num_canvases,)`.

    Raises:
        ValueError: if the shapes differ.
    """
    shapes = [tuple(x.shape) for x in (fills, other_fills, masked)]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2:
        raise ValueError(
            f"`fills`, `other_fills` and `masked` must have one shape (num_canvases, length), got {shapes}."
        )
    return ((fills != other_fills) & masked).sum(1).double(), masked.sum(1).double()


def fill_shares(
    fills: torch.Tensor, other_fills: torch.Tensor, masked: torch.Tensor, truth: torch.Tensor | None = None
) -> dict[str, float]:
    """How two fills of some canvases vary, as the record of a run holds it: event `variety`, which the card shows.

    Args:
        fills, other_fills, masked: as for [`two_fill_disagreement`].
        truth (`torch.LongTensor` of shape `(num_canvases, length)`, *optional*): the sequences behind the canvases.

    Returns:
        `sequences`, the number of canvases; `fills_differ`; `fill_differs_from_truth`, of both fills together; and
        the standard error of each over canvases, with `_error` behind its name (0 for one canvas).

    Raises:
        ValueError: as [`two_fill_disagreement`].
    """
    two_fill_disagreement(fills, other_fills, masked)  # checks
    differ_N, masked_N = differing(fills, other_fills, masked)
    shares = {"sequences": len(fills), **_share("fills_differ", differ_N, masked_N)}
    if truth is None:
        return shares
    wrong_N = (differing(fills, truth, masked)[0] + differing(other_fills, truth, masked)[0]) / 2
    return shares | _share("fill_differs_from_truth", wrong_N, masked_N)


def _share(name: str, differ_N: torch.Tensor, masked_N: torch.Tensor) -> dict[str, float]:
    """The share of all masked positions, and the standard error of that ratio of two sums over canvases."""
    share, N = float(differ_N.sum() / masked_N.sum()), len(differ_N)
    rest_N = differ_N - share * masked_N
    spread = float(rest_N.square().sum() * N / max(N - 1, 1)) ** 0.5
    return {name: share, f"{name}_error": spread / float(masked_N.sum())}


def fill_pairs(canvases: torch.Tensor) -> torch.Tensor:
    """The rows that are two fills of one canvas: of the first two rows with equal canvases, the next two, and so on.

    Args:
        canvases (`torch.LongTensor` of shape `(num_samples, length)`): what each sample fills in.

    Returns:
        `torch.LongTensor` of shape `(num_pairs, 2)`, in the order of the first. No row is in two pairs, and a canvas
        with an odd number of fills leaves one of them out.
    """
    place_N = canvases.unique(dim=0, return_inverse=True)[1].tolist()
    waiting: dict[int, int] = {}
    pairs = []
    for row, place in enumerate(place_N):
        if place in waiting:
            pairs.append((waiting.pop(place), row))
        else:
            waiting[place] = row
    return torch.tensor(sorted(pairs), dtype=torch.int64).view(-1, 2)
