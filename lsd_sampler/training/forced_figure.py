"""The figure by which [`~lsd_sampler.training.position_search`] compares: what forced sequences cost a candidate."""

import math
from collections.abc import Mapping, Sequence

import torch

from ..sampling.canvas import StepInput
from ..sampling.dependence import Dependence
from ..sampling.learned_numbers import LearnedSampler
from ..sampling.orders import AdaptiveOrder, Order
from ..sampling.position_choice import is_in_nats
from .held_out import HeldOutBatch, HeldOutRecorder, first_of, with_other_noise
from .position_candidates import FEWEST, Candidate, Measured
from .task import Task


MOST_MEASURED = 512
"""The most sequences of a part that a candidate is measured on."""


Parts = Mapping[str, Sequence[HeldOutBatch]]
"""Sequences of this process to force, by the part that they belong to: `"fit"` or `"check"`."""


class ForcedFigure:
    """What forced sequences cost a candidate, in nats per sequence.

    Args:
        task ([`Task`]): the task; its base scheduler has the order that is learned for.
        parts: sequences to search on, and others to compare on.
        dependence ([`Dependence`], *optional*): between positions.
    """

    def __init__(self, task: Task, parts: Parts, dependence: Dependence | None):
        self.task, self.parts, self.dependence = task, parts, dependence
        self.runs = with_other_noise(task.runs)
        self.num_fit, self.num_check = (
            min(MOST_MEASURED, sum(len(sequences) for sequences, _ in parts[part]) * task.workers.size)
            for part in ("fit", "check")
        )
        self.num_first = min(FEWEST, self.num_fit)

    def __call__(self, candidate: Candidate, part: str, num: int | None = None) -> Measured:
        task, M = self.task, len(candidate.shares)
        recorder = ForcedRecorder.from_config(task.base.config)
        recorder.never_predicted = task.plan.never_predicted
        recorder.set_learned_sampler(sampler_of(candidate, task, self.dependence))
        recorder.watch(M)
        num = (self.num_fit if part == "fit" else self.num_check) if num is None else num
        self.runs.network_calls, nats = task.runs.network_calls, []
        for sequences, finals in first_of(self.parts[part], max(1, num // task.workers.size)):
            recorder.force(finals)
            self.runs.run(recorder, M, sequences)
            nats.append(recorder.nats_B)
        task.runs.network_calls = self.runs.network_calls
        return recorder.seen.measured(torch.cat(nats), task)


def sampler_of(candidate: Candidate, task: Task, dependence: Dependence | None) -> LearnedSampler:
    """The sampler of a candidate, as it is measured: its times are those of its shares of whole positions."""
    M = len(candidate.shares)
    # nats do not say how many positions they are
    shares = [1 / (M - k) for k in range(M)] if is_in_nats(candidate.budget) else candidate.shares
    known_M = whole_shares(shares, task.plan.num_masked)
    steps = candidate.steps(known_M, task.base.noise, task.base.config.sampling_eps)
    return LearnedSampler({M: steps}, dependence=dependence if steps.choice is not None else None)


def whole_shares(shares: Sequence[float], num_masked: int) -> torch.Tensor:
    """The share of all positions that is known after each call, if shares of what is left are rounded up to whole
    positions. `(M,)`.
    """
    left, known = num_masked, []
    for share in shares:
        left -= math.ceil(share * left - 1e-9)
        known.append(1 - left / num_masked)
    return torch.tensor(known, dtype=torch.float64)


class Watch:
    """Counts how many positions are known and open in each of M calls."""

    def __init__(self, M: int):
        self.known_M, self.open_M, self.rows_M = torch.zeros(3, M, dtype=torch.float64)

    def add(self, x: StepInput, revealed_BL: torch.Tensor, open_BL: torch.Tensor) -> None:
        """Counts the canvases of one step.

        Args:
            x ([`StepInput`]): the step.
            revealed_BL, open_BL (`torch.BoolTensor` of shape `(batch_size, seq_len)`): what it reveals, and what it
                could choose from.
        """
        start_B = x.canvas.masked_BL.sum(1).clamp(min=1)
        self.known_M[x.k] += float((1 - (x.masked_BL & ~revealed_BL).sum(1) / start_B).sum())
        self.open_M[x.k] += float(open_BL.sum())
        self.rows_M[x.k] += len(open_BL)

    def measured(self, costs_S: torch.Tensor, task: Task) -> Measured:
        """These costs of the sequences of this process, and what was seen, of all processes."""
        known_M, open_M, rows_M = task.workers.sum(torch.stack([self.known_M, self.open_M, self.rows_M]))
        rows_M = rows_M.clamp(min=1)
        return Measured(task.workers.concatenate(costs_S), known_M / rows_M, open_M / rows_M)


class ForcedRecorder(HeldOutRecorder):
    """A sampler that is forced along sequences; it also sees how many tokens are known and open in each call."""

    def watch(self, M: int) -> None:
        """Begins to count, for runs of M steps."""
        self.seen = Watch(M)

    def reveals(self, x: StepInput) -> torch.Tensor:
        """Where the sampler reveals tokens. `(B, L)`."""
        rule, choice = self.rule, self.steps.choice
        assert isinstance(rule, Order)
        open_BL = x.masked_BL
        if isinstance(rule, AdaptiveOrder) and choice is not None and not x.is_last:
            seen = rule.look(x, choice)
            revealed_BL, open_BL = rule.choose(x, self.plan, choice, seen), seen.open_BL
        else:
            revealed_BL, _ = rule.reveals(x, self.plan)
        self.seen.add(x, revealed_BL, open_BL)
        return revealed_BL
