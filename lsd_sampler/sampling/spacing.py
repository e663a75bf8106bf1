"""A least distance between the positions that one step reveals (DUS, https://huggingface.co/papers/2506.19037).

Shape suffixes: B batch, L positions, J powers of two.
"""

import torch

from .canvas import StepInput


def spaced(place_BL: torch.Tensor, among_BL: torch.Tensor, x: StepInput, minimal_gap: int) -> torch.Tensor:
    """The candidates that keep their distance: taken in the order of their places, each that lies far enough from all
    that were taken before it. `(B, L)`, bool.

    The distance is `max(2, m * minimal_gap // n)`, where m of the n positions that were masked at the start are masked
    still. The first candidate is always taken. A `minimal_gap` of 0 takes them all.

    Args:
        place_BL (`torch.LongTensor` of shape `(batch_size, seq_len)`): 0 for the best candidate; no two are equal.
        among_BL (`torch.BoolTensor` of that shape): the candidates.
        x ([`~lsd_sampler.sampling.canvas.StepInput`]): the step.
        minimal_gap (`int`): the distance when all is masked.

    Raises:
        ValueError: on an image, where positions have no distance in one dimension.
    """
    if not minimal_gap:
        return among_BL
    if len(x.canvas.shape) > 1:
        raise ValueError("`minimal_gap` is a distance in a sequence, and this canvas is an image: leave it out.")
    num_B = x.canvas.masked_BL.sum(1).clamp(min=1)
    gap_B = ((x.canvas.masked_BL & x.masked_BL).sum(1) * minimal_gap // num_B).clamp(min=2)
    return keeping_distance(place_BL, among_BL, gap_B)


def keeping_distance(place_BL: torch.Tensor, among_BL: torch.Tensor, gap_B: torch.Tensor) -> torch.Tensor:
    """As [`spaced`], for a distance of each row. A candidate that is the best within its distance is taken whatever
    happens elsewhere, so all of these are taken at a time.
    """
    taken_BL, left_BL, nowhere = torch.zeros_like(among_BL), among_BL, place_BL.shape[1]
    while bool(left_BL.any()):
        left_place_BL = torch.where(left_BL, place_BL, nowhere)
        best_BL = left_BL & (left_place_BL == least_within(left_place_BL, gap_B - 1))
        taken_BL = taken_BL | best_BL
        left_BL = left_BL & (least_within((~best_BL).long(), gap_B - 1) > 0)
    return taken_BL


def least_within(value_BL: torch.Tensor, reach_B: torch.Tensor) -> torch.Tensor:
    """The least value within `reach` positions to either side. `(B, L)`.

    Two windows of a power of two cover each window, so a table of their minima answers for all rows at once.
    """
    L = value_BL.shape[1]
    reach_B = reach_B.clamp(max=L - 1)
    pad, width_B = int(reach_B.max()), 2 * reach_B + 1
    minima = [torch.nn.functional.pad(value_BL, (pad, pad), value=2**31)]  # above any value
    while 2 ** len(minima) <= int(width_B.max()):
        half = 2 ** (len(minima) - 1)
        later_BN = torch.cat([minima[-1][:, half:], minima[-1][:, :half]], dim=1)
        minima.append(torch.minimum(minima[-1], later_BN))
    exponent_B = width_B.double().log2().floor().long()
    table_BN = torch.stack(minima)[exponent_B, torch.arange(len(value_BL), device=value_BL.device)]
    start_BL = torch.arange(L, device=value_BL.device) + pad - reach_B[:, None]
    second_BL = start_BL + (width_B - 2**exponent_B)[:, None]
    return torch.minimum(table_BN.gather(1, start_BL), table_BN.gather(1, second_BL))
