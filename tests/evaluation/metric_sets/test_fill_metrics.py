"""The metric set of canvases that are partly given."""

import pytest
import torch

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline, load_denoiser
from lsd_sampler.denoisers import Oracle, TableDenoiser
from lsd_sampler.evaluation import (
    FillMetrics,
    Harness,
    MetricSet,
    SetMetrics,
    TokenMetrics,
    exact_fills,
    exact_samples,
    oracle_metrics,
)
from lsd_sampler.evaluation.columns import with_ends
from lsd_sampler.sampling.left_out import LEFT_OUT


def Letters() -> MetricSet:
    return TokenMetrics(torch.tensor([[0, 1, 0]]), num_resamples=4)


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


def test_fills_of_one_canvas_are_found_wherever_they_are() -> None:
    """Samples that take the canvases in turn have the same shares as those that take each twice in a row."""
    canvases = torch.tensor([[2, 2, 0], [2, 2, 0], [1, 2, 2], [1, 2, 2]])
    truth = torch.tensor([[0, 1, 0], [0, 1, 0], [1, 1, 1], [1, 1, 1]])
    fills = torch.tensor([[0, 1, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0]])
    rows = []
    for order in ([0, 1, 2, 3], [0, 2, 1, 3]):
        metrics = FillMetrics(Letters(), canvases[order], truth[order], 2)
        rows.append(metrics.compute(fills[order]))
        assert set(rows[-1]) == set(metrics.keys)
    for key in with_ends("fills_differ", "fill_error"):
        assert rows[0][key] == rows[1][key]
    assert rows[0]["fills_differ"] == 2 / 4


def test_where_the_truth_is_unknown_it_is_not_compared() -> None:
    canvases = torch.tensor([[2, 2, 0], [1, 2, 2], [2, 2, 0], [1, 2, 2]])
    unknown = torch.full((4, 3), LEFT_OUT)
    truth = unknown.clone()
    truth[[0, 2]] = torch.tensor([0, 1, 0])
    fills = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    row = FillMetrics(Letters(), canvases, truth, 2).compute(fills)
    assert (row["fills_differ"], row["fill_error"]) == (2 / 4, 1 / 4)
    for nothing in (None, unknown):
        metrics = FillMetrics(Letters(), canvases, nothing, 2)
        row = metrics.compute(fills)
        assert row["fills_differ"] == 2 / 4 and "fill_error" not in row and set(row) == set(metrics.keys)
    assert "fills_differ" not in FillMetrics(Letters(), canvases[:2], truth[:2], 2).compute(fills[:2])
    given = torch.tensor([[1, 0, 0]] * 2 + [[2, 0, 0]])  # two fills of what needs none
    assert "fills_differ" not in FillMetrics(Letters(), given, None, 2).compute(given.clamp(max=1))
    with pytest.raises(ValueError, match="`truth`"):
        FillMetrics(Letters(), canvases, truth[:2], 2)


def test_the_interval_is_that_of_independent_canvases() -> None:
    """Fair coins: the half-width is 1.96 times the standard deviation of a share of 2,000. That of 1,000 resamples
    scatters by 5 % at most, and the variance of 500 canvases by 6 %: 25 % is over 4 standard deviations.
    """
    canvases = torch.full((1000, 5), 2)
    canvases[:, 0] = torch.arange(1000) // 2
    masked = canvases.clone()
    masked[:, 0] += 10
    fills = torch.randint(2, (1000, 5), generator=torch.Generator().manual_seed(0))
    metrics = FillMetrics(Letters(), masked, fills.roll(4, 0), 2, num_resamples=1000)
    row = metrics.compute(fills)
    for key, num in (("fills_differ", 2000), ("fill_error", 4000)):
        half = (row[f"{key}_high"] - row[f"{key}_low"]) / 2
        assert half == pytest.approx(1.96 * 0.5 / num**0.5, rel=0.25)


def test_canvases_have_the_mask_of_the_model_that_fills_them() -> None:
    oracle = load_denoiser("sudoku4:clues=8")
    assert isinstance(oracle, Oracle)
    own, others = oracle_metrics(oracle, 10), oracle_metrics(oracle, 10, mask_token_id=7)
    assert isinstance(own, FillMetrics) and isinstance(others, FillMetrics)
    assert torch.equal(others.canvases, torch.where(own.canvases == 4, 7, own.canvases))
    assert torch.equal(exact_samples(oracle, own, 10), exact_samples(oracle, others, 10))


def test_exact_fills_of_canvases_of_any_length() -> None:
    oracle = load_denoiser("countdown:V=4,L=8")
    assert isinstance(oracle, Oracle)
    canvases = [torch.tensor(row) for row in ([3, 9, 1], [9, 1, 9, 3, 9], [9, 2, 1])]
    fills = exact_fills(oracle, canvases, 9)
    assert fills[0].tolist() == [3, 2, 1] and fills[2].tolist() == [3, 2, 1]
    assert fills[1][1:].tolist() == [1, 0, 3, 2] and int(fills[1][0]) in (0, 2)


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
