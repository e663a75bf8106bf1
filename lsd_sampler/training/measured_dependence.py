"""How strongly positions depend on each other, measured along sequences that are forced upon a pipeline.

Revealing a token at i takes `H_j - H_j|x_i` nats from the uncertainty of position j. The mean of this over tokens of
the model's own law is the mutual information of the two positions. It is at most the smaller of their entropies, and
kappa is the share of that bound. Nothing of the size of the logits is kept between two calls.

Shape suffixes: B batch, L positions, K buckets of the known share, P pairs.
"""

import math
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm

from ..sampling import certainty
from ..sampling.canvas import StepInput
from ..sampling.dependence import LAYOUTS, Dependence
from .held_out import HeldOutBatch, HeldOutRecorder, first_of, with_other_noise
from .task import Task


NUM_BUCKETS = 4
MOST_CALLS = 64
"""Network calls for each sequence: one for each state if a canvas has no more, else two for each of half as many."""
MOST_EVALUATIONS = 16384
"""Network calls, each on one sequence."""
LARGEST_MATRIX = 256
"""Canvases of more positions get no matrix: it would be large, and every entry rarely measured."""
_LEAST_NATS = 1e-4


def states_of_pairs(num_masked: int) -> list[int]:
    """Numbers of known tokens at which the network is called; most are followed by the next number."""
    if num_masked <= MOST_CALLS:
        return list(range(num_masked))
    firsts = torch.linspace(0, num_masked - 2, MOST_CALLS // 2).round().long().tolist()
    return sorted({state for first in firsts for state in (first, first + 1)})


@dataclass
class PairSums:
    """Sums over pairs of positions, in one layout of kappa.

    Args:
        taken, most (`torch.DoubleTensor` of the shape of kappa): entropy that was taken away, and the most that could
            have been, by bucket and by pair, position or distance.
    """

    taken: torch.Tensor
    most: torch.Tensor

    def kappa(self) -> torch.Tensor:
        """The share that was taken away, in [0, 1]; a bucket that was not seen has the numbers of the nearest one."""
        taken, most = self.taken, self.most
        seen = most.flatten(1).sum(1) > 0
        if not bool(seen.any()):
            return torch.zeros_like(taken)
        index = torch.arange(len(seen))
        distance = (index[:, None] - index).abs().double().masked_fill(~seen, math.inf)
        return (taken / most.clamp(min=1e-9)).clamp(0, 1)[distance.argmin(1)]


class PairRecorder(HeldOutRecorder):
    """Reveals the tokens of given sequences in random order, and sees what each one tells about all others."""

    def visit(self, states: list[int], num_masked: int, layouts: dict[str, tuple[int, ...]]) -> None:
        """Makes the next runs call the network at these numbers of known tokens.

        Args:
            states: increasing from 0; scaled for rows with fewer masked positions than `num_masked`.
            num_masked (`int`): of the row with most of them.
            layouts: for each layout to measure, the shape of its kappa without the axis of buckets.
        """
        self.counts, self.num_masked = [*states, num_masked], num_masked
        self.sums = {name: PairSums(*torch.zeros(2, NUM_BUCKETS, *shape).double()) for name, shape in layouts.items()}

    def force(self, finals: list[torch.Tensor]) -> None:
        super().force(finals)
        self._before: tuple[torch.Tensor, torch.Tensor] | None = None

    def record(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
        final_BL = self._final(x)
        row_R, position_R = x.masked_BL.nonzero(as_tuple=True)
        entropy_R = certainty.of_rows(certainty.entropy, x.logits_BLV, row_R, position_R, x.mask_token_id)
        entropy_BL = x.spread(row_R, position_R, entropy_R, 0.0)
        if x.k and self._before is not None:
            self._compare(x, *self._before, entropy_BL)
        self._before = x.masked_BL, entropy_BL
        masked_B, L = x.canvas.masked_BL.sum(1), self.num_masked
        known_B = (self.counts[x.k + 1] * masked_B + L - 1) // L
        reveal_BL = x.masked_BL & (x.canvas.rank_BL < known_B[:, None])
        return torch.where(reveal_BL, final_BL, x.sample_BL), reveal_BL.float()

    def _compare(self, x: StepInput, masked_BL: torch.Tensor, before_BL: torch.Tensor, after_BL: torch.Tensor) -> None:
        """Adds up what the only position that a row revealed told about those that are still masked."""
        new_BL = masked_BL & ~x.masked_BL
        row_P = ((new_BL.sum(1) == 1) & x.masked_BL.any(1)).nonzero()[:, 0]
        if not len(row_P):
            return
        told_P = new_BL[row_P].long().argmax(1)
        still_PL = x.masked_BL[row_P]
        most_PL = torch.minimum(before_BL[row_P], before_BL[row_P, told_P][:, None]) * still_PL
        most_PL = torch.where(most_PL > _LEAST_NATS, most_PL, 0.0)
        taken_PL = (before_BL - after_BL)[row_P] * (most_PL > 0)
        known_P = (~masked_BL[row_P]).sum(1)
        bucket_P = (known_P * NUM_BUCKETS // masked_BL.shape[1]).clamp(max=NUM_BUCKETS - 1)
        values = taken_PL.cpu(), most_PL.cpu(), bucket_P.cpu(), told_P.cpu()
        for layout, sums in self.sums.items():
            _add(layout, sums, x.canvas.shape, *values)


def _add(
    layout: str,
    sums: PairSums,
    canvas_shape: tuple[int, ...],
    taken_PL: torch.Tensor,
    most_PL: torch.Tensor,
    bucket_P: torch.Tensor,
    told_P: torch.Tensor,
) -> None:
    place_L, shape = torch.arange(taken_PL.shape[1]), sums.taken.shape[1:]
    if layout == "matrix":
        for sum_, value in ((sums.taken, taken_PL), (sums.most, most_PL)):
            sum_.index_put_((bucket_P, told_P), value, accumulate=True)
        return
    if layout == "offset":
        distance: tuple[torch.Tensor, ...] = ((place_L - told_P[:, None]).abs(),)
    else:
        width = canvas_shape[1]
        distance = tuple((f(place_L) - f(told_P)[:, None]).abs() for f in (lambda i: i // width, lambda i: i % width))
    inside_PL = torch.stack([axis < size for axis, size in zip(distance, shape, strict=True)]).all(0)
    index = tuple(axis.clamp(max=size - 1) for axis, size in zip(distance, shape, strict=True))
    for sum_, value in ((sums.taken, taken_PL), (sums.most, most_PL)):
        sum_.index_put_((bucket_P[:, None].expand_as(value), *index), value * inside_PL, accumulate=True)


def layouts_of(canvas_shapes: set[tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The layouts of kappa that canvases of these shapes admit, with the shape of each without the axis of buckets."""
    lengths = {math.prod(shape) for shape in canvas_shapes}
    layouts: dict[str, tuple[int, ...]] = {}
    if all(len(shape) == 1 for shape in canvas_shapes):
        layouts["offset"] = (max(lengths),)
    elif len(canvas_shapes) == 1:
        layouts["offset_2d"] = next(iter(canvas_shapes))
    if len(lengths) == 1 and max(lengths) <= LARGEST_MATRIX:
        layouts["matrix"] = (max(lengths), max(lengths))
    return layouts


def measured_dependence(
    task: Task, batches: list[HeldOutBatch], canvas_shapes: set[tuple[int, ...]]
) -> dict[str, Dependence]:
    """Kappa in each layout that the canvases admit. One run of the pipeline for each batch of sequences."""
    recorder = PairRecorder.from_config(task.base.config, order="random")
    states, layouts = states_of_pairs(task.plan.num_masked), layouts_of(canvas_shapes)
    stored = task.progress.load("dependence")
    if stored is None:
        recorder.visit(states, task.plan.num_masked, layouts)
        runs = with_other_noise(task.runs)
        num = max(1, MOST_EVALUATIONS // len(states) // task.workers.size)
        for sequences, finals in tqdm(first_of(batches, num), desc="dependence", unit="batch"):
            recorder.force(finals)
            runs.run(recorder, len(states), sequences)
        stored = {"network_calls": torch.tensor(runs.network_calls)}
        for name, sums in recorder.sums.items():
            both = torch.stack([sums.taken, sums.most])
            both = both + both.mT if name == "matrix" else both
            stored[name] = PairSums(*task.workers.sum(both)).kappa()
        task.progress.save("dependence", stored)
    task.runs.network_calls = int(stored["network_calls"])
    return {name: Dependence(_shortened(name, stored[name]), name) for name in LAYOUTS if name in stored}


def _shortened(layout: str, kappa: torch.Tensor) -> torch.Tensor:
    """Kappa by distance, without far ones that are all but 0."""
    if layout == "matrix":
        return kappa
    kept = kappa.clone()
    for axis in range(1, kappa.ndim):
        others = [other for other in range(kappa.ndim) if other != axis]
        reached = (kept.amax(others) >= 0.01).nonzero()
        kept = kept.narrow(axis, 0, int(reached.max()) + 1 if len(reached) else 1)
    return kept.contiguous()
