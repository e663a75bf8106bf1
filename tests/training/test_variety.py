"""How fills vary under a learned sampler, as a run of `distill` logs it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill, load_denoiser


def records_of(spec: str, folder: Path | None, nfe: int, **options: Any) -> list[dict[str, Any]]:
    oracle, records = load_denoiser(spec), []
    canvases, _ = oracle.canvases(256, torch.Generator().manual_seed(0))
    call = {"input_ids": canvases} if oracle.clues else {}
    config = DistillConfig(method="forced_kl", nfe=(nfe,), num_sequences=128, search_evaluations=4000, **options)
    distill(
        MaskedDiffusionPipeline(oracle, LSDScheduler(**oracle.scheduler_config())),
        config,
        log=records.append,
        checkpoint_dir=folder,
        **call,
    )
    return [record for record in records if record["event"] == "variety"]


def test_exact_fills_differ_as_often_as_they_err(tmp_path: Path) -> None:
    """As many calls as there are tokens make exact fills. 5 standard errors: a false alarm in 1.7 million."""
    [record] = records_of("sudoku4:clues=4", tmp_path, nfe=12)
    error = (record["fills_differ_error"] ** 2 + record["fill_differs_from_truth_error"] ** 2) ** 0.5
    assert record["sequences"] == 128
    assert 0 < record["fills_differ"] < 1
    assert abs(record["fills_differ"] - record["fill_differs_from_truth"]) < 5 * error


@pytest.mark.parametrize(("spec", "keeps"), [("sudoku4", True), ("sudoku4:clues=4", False)])
def test_nothing_is_measured_without_a_truth_or_a_part_given(spec: str, keeps: bool, tmp_path: Path) -> None:
    assert records_of(spec, tmp_path if keeps else None, nfe=2) == []
