"""How the fills of partly given canvases vary under what was learned: two fills of one canvas, and a fill beside the
sequence behind the canvas. A sampler may have few mistakes because its fills are all alike.
"""

import dataclasses

import torch

from ..sampling.fills import fill_shares
from ..sampling.learned_numbers import LearnedSampler
from ..sampling.pipeline_runs import PipelineRuns
from .held_out import with_other_noise
from .paths import source_paths
from .task import Task
from .two_sided import SampleRecorder


NUM_CANVASES = 128
"""The most canvases to fill in, each twice."""


def log_variety(task: Task, learned: LearnedSampler) -> None:
    """Logs how the fills of a learned sampler vary, for each number of calls; nothing for whole canvases.

    This judges what was learned, so its network calls, `2 C batches` for each of the M, are not those of the learning:
    only its own records count them. The sequences behind the canvases are those that were learned from. Where these
    are not kept (no folder and no cache), nothing is measured.

    Args:
        task ([`Task`]): its `base` has the sampler's order.
        learned ([`LearnedSampler`]): what was learned.
    """
    kept = task.cache is not None or task.progress.folder is not None
    if task.plan.is_whole or not kept:
        return
    calls = task.runs.network_calls
    batches = list(zip(task.batches(), source_paths(dataclasses.replace(task, log=_silent)), strict=True))
    num, chosen = NUM_CANVASES // task.workers.size, []
    for sequences, paths in batches:
        if num > 0:
            chosen.append((sequences[:num], paths))
            num -= len(sequences)
    truth, masked = (
        torch.cat([torch.cat([getattr(p, name)[: len(s)].cpu() for p in paths], dim=1) for s, paths in chosen])
        for name in ("final_BL", "masked_BL")
    )
    first = with_other_noise(task.runs)
    both = first, with_other_noise(first)
    for runs in both:
        runs.network_calls = 0
    for M in task.config.nfe:
        fills = [_fills(task, learned, M, runs, [s for s, _ in chosen]) for runs in both]
        rows = [task.workers.concatenate(each) for each in (*fills, masked, truth)]
        shares = fill_shares(rows[0], rows[1], rows[2], rows[3])
        task.log(event="variety", nfe=M, **shares, network_calls=sum(runs.network_calls for runs in both))
        for runs in both:
            runs.network_calls = 0
    task.runs.network_calls = calls


def _fills(task: Task, learned: LearnedSampler, M: int, runs: PipelineRuns, batches: list[range]) -> torch.Tensor:
    """One fill of each canvas, `(num, seq_len)`, on the CPU."""
    recorder = SampleRecorder.from_config(task.base.config)
    recorder.set_learned_sampler(learned)
    ends = []
    for sequences in batches:
        runs.run(recorder, M, sequences)
        ends.append(torch.cat([end.cpu() for end in recorder.ends], dim=1))
    return torch.cat(ends)


def _silent(**_: object) -> None:
    """Logs nothing."""
