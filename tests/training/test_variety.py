"""How fills vary under a learned sampler, as a run of `distill` logs it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_distillations import pipeline_of

from lsd_sampler import DistillConfig, distill
from lsd_sampler.denoisers import Oracle, random_chain, sudoku4


def varieties(oracle: Oracle, canvases: torch.Tensor | None, folder: Path | None) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    small: dict[str, Any] = {"num_sequences": 256, "search_evaluations": 1000, "terms": ("own", "random")}
    config = DistillConfig(method="forced_kl", nfe=(1, 3), free_below=(0.3,), **small)
    call = {} if canvases is None else {"input_ids": canvases}
    distill(pipeline_of(oracle), config, log=records.append, checkpoint_dir=folder, **call)
    return [record for record in records if record["event"] == "variety"]


@pytest.mark.parametrize("seed", [1, 2])
def test_exact_fills_differ_as_often_as_they_err(seed: int, tmp_path: Path) -> None:
    """Every other token of a chain is given, so the others are independent, and fills are exact whatever is revealed
    together. 5 standard errors, fixed seeds: with others a right run fails 6 times in 10 million.
    """
    chain = random_chain(4, 16, seed=seed)
    x_NL = chain.sample(256, torch.Generator().manual_seed(0))
    found = varieties(chain, x_NL.masked_fill(torch.arange(16) % 2 == 1, chain.mask_token_id), tmp_path)
    assert [record["nfe"] for record in found] == [1, 3]
    for record in found:
        error = (record["fills_differ_error"] ** 2 + record["fill_differs_from_truth_error"] ** 2) ** 0.5
        assert record["sequences"] == 128 and 0.2 < record["fills_differ"] < 0.8 and error < 0.03
        assert abs(record["fills_differ"] - record["fill_differs_from_truth"]) < 5 * error


@pytest.mark.parametrize(("is_given", "keeps"), [(False, True), (True, False)])
def test_nothing_is_measured_without_a_truth_or_a_part_given(is_given: bool, keeps: bool, tmp_path: Path) -> None:
    oracle = sudoku4()
    canvases = oracle.sequences.masked_fill(torch.arange(16) > 3, oracle.mask_token_id) if is_given else None
    assert varieties(oracle, canvases, tmp_path if keeps else None) == []
