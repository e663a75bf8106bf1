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
from .recipe import Recipe
from .task import Task
from .two_sided import SampleRecorder


NUM_CANVASES = 128
"""The most canvases to fill in, each twice."""


def log_variety(task: Task, learned: LearnedSampler) -> None:
    """Logs how the fills of a learned sampler vary, for each number of calls; nothing for whole canvases.

    It takes `2 C batches` times the sum of the NFEs in network calls. The sequences behind the canvases are those that
    were learned from; where they are not kept (no data, no folder and no cache), nothing is measured.

    Args:
        task ([`Task`]): its `base` has the sampler's order.
        learned ([`LearnedSampler`]): what was learned.
    """
    kept = task.data is not None or task.cache is not None or task.progress.folder is not None
    if task.plan.is_whole or not kept:
        return
    calls = task.runs.network_calls
    batches = list(zip(task.batches(), source_paths(dataclasses.replace(task, log=_silent)), strict=True))
    task.runs.network_calls = calls  # they were counted when they were made
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
    for M in task.config.nfe:
        fills = [_fills(task, learned, M, runs, [s for s, _ in chosen]) for runs in both]
        rows = [task.workers.concatenate(each) for each in (*fills, masked, truth)]
        shares = fill_shares(rows[0], rows[1], rows[2], rows[3])
        task.log(event="variety", nfe=M, **shares, network_calls=task.runs.network_calls)


def network_calls(recipe: Recipe) -> int:
    """The network calls of [`log_variety`] on partly given canvases; an upper bound."""
    num = min(NUM_CANVASES, recipe.num_sequences)
    return 2 * recipe.plan.num_canvases * -(-num // recipe.config.batch_size) * sum(recipe.config.nfe)


def _fills(task: Task, learned: LearnedSampler, M: int, runs: PipelineRuns, batches: list[range]) -> torch.Tensor:
    """One fill of each canvas, `(num, seq_len)`, on the CPU."""
    recorder = SampleRecorder.from_config(task.base.config)
    recorder.set_learned_sampler(learned)
    runs.network_calls, ends = task.runs.network_calls, []
    for sequences in batches:
        runs.run(recorder, M, sequences)
        ends.append(torch.cat([end.cpu() for end in recorder.ends], dim=1))
    task.runs.network_calls = runs.network_calls
    return torch.cat(ends)


def _silent(**_: object) -> None:
    """Logs nothing."""
