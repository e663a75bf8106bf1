"""The metric set of canvases that are partly given."""

import pytest
import torch

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline, load_denoiser
from lsd_sampler.denoisers import Oracle, TableDenoiser
from lsd_sampler.evaluation import FillMetrics, Harness, SetMetrics, oracle_metrics


def test_fills_by_hand() -> None:
    canvases = torch.tensor([[2, 2, 0], [2, 2, 0], [1, 2, 2], [1, 2, 2]])
    truth = torch.tensor([[0, 1, 0], [0, 1, 0], [1, 1, 1], [1, 1, 1]])
    fills = torch.tensor([[0, 1, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0]])
    table = TableDenoiser(torch.tensor([[0, 1, 0], [1, 1, 1]]))
    metrics = FillMetrics(SetMetrics(table, group=2), canvases, truth, 2)
    row = metrics.compute(fills)
    assert (row["fills_differ"], row["fill_error"]) == (2 / 4, 4 / 8) and row["valid_share"] == 1 / 4
    assert set(row) == set(metrics.keys) and metrics.verdict_key == "invalid_share"
    with pytest.raises(ValueError, match="`num_samples`"):
        metrics.compute(fills[:2])


def test_the_harness_fills_each_canvas_it_is_given() -> None:
    oracle = load_denoiser("sudoku4:clues=8")
    assert isinstance(oracle, Oracle)
    pipe = MaskedDiffusionPipeline(oracle, LSDScheduler(**oracle.scheduler_config()))
    pipe.set_progress_bar_config(disable=True)
    metrics = oracle_metrics(oracle, 10)
    assert isinstance(metrics, FillMetrics)
    seen: list[torch.Tensor] = []
    metrics.whole.compute, kept = lambda x, texts=None: seen.append(x) or kept(x), metrics.whole.compute  # type: ignore
    options = {"num_samples": 10, "batch_size": 3, "progress": False}
    harness = Harness(pipe, {"plain": pipe.scheduler}, metrics, canvases=metrics.canvases, **options)
    harness.measure(harness.points([4], [1.0]))
    given = metrics.canvases != oracle.mask_token_id
    assert torch.equal(seen[0][given], metrics.canvases[given])
    other = Harness(pipe, {"plain": pipe.scheduler}, metrics, canvases=metrics.canvases.flip(0), **options)
    assert other.identity != harness.identity
    with pytest.raises(ValueError, match="`canvases`"):
        Harness(pipe, {"plain": pipe.scheduler}, metrics, canvases=metrics.canvases[:9], **options)
