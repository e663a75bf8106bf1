"""Sequences of a model's own that it contradicts, and those that take their place."""

from typing import Any

import pytest
import torch
from torch import nn

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, load_denoiser
from lsd_sampler.sampling.pipeline_runs import PipelineRuns
from lsd_sampler.training.consistent import consistent
from lsd_sampler.training.held_out import HeldOutBatch
from lsd_sampler.training.progress import Progress
from lsd_sampler.training.recording import teacher_plan
from lsd_sampler.training.task import Task


def task_of(oracle: nn.Module, records: list[dict[str, Any]], has_data: bool = False) -> Task:
    base = LSDScheduler(**oracle.scheduler_config())
    runs, config = PipelineRuns(MaskedDiffusionPipeline(oracle, base), 0, {}), DistillConfig(num_sequences=12)
    recipe = config.resolve(teacher_plan(runs, base, config), has_data)
    return Task(runs, base, recipe, lambda **record: records.append(record), Progress())


def batches_of(sequences_SL: torch.Tensor, size: int) -> list[HeldOutBatch]:
    rows = range(len(sequences_SL))
    return [(rows[i : i + size], [sequences_SL[i : i + size]]) for i in rows[::size]]


def test_possible_sequences_stay_as_they_are() -> None:
    oracle, records = load_denoiser("sudoku4"), []
    given = batches_of(oracle.sample(12, torch.Generator().manual_seed(0)), 5)
    kept, index = consistent(task_of(oracle, records), given)
    assert index.tolist() == list(range(12))
    assert records[-1]["left_out"] == 0
    for (rows, [final]), (kept_rows, [kept_final]) in zip(given, kept, strict=True):
        assert list(rows) == list(kept_rows) and torch.equal(final, kept_final)


def test_an_impossible_sequence_is_replaced_by_one_of_its_batch() -> None:
    """Every grid costs an exact denoiser the same, so one that breaks the rules is far out whatever the noise."""
    oracle, records = load_denoiser("sudoku4"), []
    sequences = oracle.sample(12, torch.Generator().manual_seed(0))
    sequences[[3, 7]] = 0
    kept, index = consistent(task_of(oracle, records), batches_of(sequences, 6))
    assert records[-1]["left_out"] == 2
    assert (index == torch.arange(12)).sum() == 10 and not {3, 7} & set(index.tolist())
    assert index[3] < 6 <= index[7]
    assert [list(rows) for rows, _ in kept] == [index[:6].tolist(), index[6:].tolist()]
    assert torch.equal(torch.cat([final for _, [final] in kept]), sequences[index])


@pytest.mark.parametrize("size", [4, 12])
def test_real_sequences_are_never_left_out(size: int) -> None:
    oracle, records = load_denoiser("sudoku4"), []
    given = batches_of(torch.zeros(12, 16, dtype=torch.int64), size)
    task = task_of(oracle, records, has_data=True)
    calls = task.runs.network_calls
    kept, index = consistent(task, given)
    assert kept == given and index.tolist() == list(range(12))
    assert task.runs.network_calls == calls and not records
