"""What is asked of a metric set: each built-in one keeps to it, and one of one's own is carried to the end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.evaluation_fakes import FakePipeline, FakeSampler, Task, character_tokenizer, text_metrics, tiny_gpt2

from lsd_sampler.cli.evaluate import write_report
from lsd_sampler.denoisers import load_denoiser, sudoku4
from lsd_sampler.denoisers.markov import countdown
from lsd_sampler.evaluation import (
    FillMetrics,
    Harness,
    JudgeNLL,
    MetricSet,
    MoleculeMetrics,
    OracleMetrics,
    SetMetrics,
    TextMetrics,
    TokenMetrics,
    compare,
    floor_row,
    oracle_metrics,
    read_jsonl,
    write_jsonl,
)
from lsd_sampler.evaluation.bootstrap import grouped_weights
from lsd_sampler.evaluation.columns import CIRCUMSTANCES
from lsd_sampler.evaluation.metric_sets import known_columns
from lsd_sampler.evaluation.report import make_report


def tokens(num: int = 8, length: int = 16, vocab: int = 4) -> torch.Tensor:
    return torch.randint(vocab, (num, length), generator=torch.Generator().manual_seed(0))


def judged_texts() -> TextMetrics:
    return text_metrics(JudgeNLL(tiny_gpt2(context=64), character_tokenizer()), orders=(2, 3, 4))


def clues(name: str) -> Callable[[], MetricSet]:
    return lambda: oracle_metrics(load_denoiser(name), 8)  # pyright: ignore[reportArgumentType]


def molecules() -> MetricSet:
    for library in ("fcd_torch", "rdkit"):
        pytest.importorskip(library)
    return MoleculeMetrics(character_tokenizer(), ["CCO", "CCN", "CCC"], ["CO"], num_resamples=4)


SETS: dict[str, tuple[Callable[[], MetricSet], torch.Tensor]] = {
    "chain": (lambda: OracleMetrics(countdown(4, 16).transition), tokens()),
    "chain, clues": (clues("countdown:V=4,L=16,clues=3"), tokens()),
    "set": (lambda: SetMetrics(sudoku4()), tokens()),
    "large set": (lambda: SetMetrics(load_denoiser("brackets:L=24")), tokens(length=24)),  # pyright: ignore[reportArgumentType]
    "set, clues": (clues("sudoku4:clues=4"), tokens()),
    "molecules": (molecules, torch.tensor([[*map(ord, text)] for text in ("CCN", "CCC", "C(C", "COC")])),
    "text": (text_metrics, 97 + tokens(length=50)),
    "judged text": (judged_texts, 97 + tokens(length=50)),
    "tokens": (lambda: TokenMetrics(tokens(), features=lambda x, _: x.float()), tokens()),
}


@pytest.fixture(params=list(SETS), scope="module")
def measured(request: pytest.FixtureRequest) -> tuple[MetricSet, dict[str, Any]]:
    make, sequences = SETS[request.param]
    metrics = make()
    return metrics, floor_row(metrics, sequences)


def test_rows_hold_what_the_set_defines(measured: tuple[MetricSet, dict[str, Any]]) -> None:
    metrics, row = measured
    assert set(row) - {"num_samples", *(column.key for column in CIRCUMSTANCES)} == set(metrics.keys)
    assert len({metric.key for metric in metrics.metrics}) == len(metrics.metrics)
    assert all(metric.meaning for metric in metrics.metrics)


def test_the_verdict_is_a_column_with_its_interval_behind_it(measured: tuple[MetricSet, dict[str, Any]]) -> None:
    """And every other column is one of some set."""
    metrics, _ = measured
    layout, key = metrics.layout(), metrics.verdict_key
    place = layout.table.index(key)
    assert layout.table[place : place + 3] == (key, f"{key}_low", f"{key}_high")
    own = {column.key for metric in metrics.metrics for column in metric.columns}
    assert {*layout.table, *layout.details, *layout.drawn} <= own | set(known_columns())


# ---- of one's own ----


def reported(metrics: MetricSet, folder: Path, **options: Any) -> list[dict[str, Any]]:
    """Two samplers, of one and of three letters, that the set is carried to the end with; the rows."""
    samplers = {"right": FakeSampler(1), "often wrong": FakeSampler(3)}
    call: dict[str, Any] = {"num_samples": 6, "progress": False, "length": 4} | options
    harness = Harness(FakePipeline(), samplers, metrics, **call)
    found = compare(harness, [2, 4], floor=floor_row(metrics, torch.full((6, 4), 97)))
    write_report(make_report("Task", found, metrics), folder)
    return json.loads((folder / "summary.json").read_text())["rows"]


def test_a_task_needs_one_class(tmp_path: Path) -> None:
    """Its own columns, what follows from the cost, and a metric of which more is better."""
    rows = reported(Task(), tmp_path, output=tmp_path / "rows.jsonl")
    assert [row["tokens_per_call"] for row in rows] == [2, 1, 2, 1]
    assert [row["share_right"] for row in rows[:2]] == [1, 1] and rows[2]["share_right"] < 1
    first, second, _ = (tmp_path / "table.txt").read_text().split("\n\n")
    assert first.splitlines()[0].split("  ")[0] == "sampler" and "tokens / call" in first and "wrong" in second
    page = (tmp_path / "report.html").read_text()
    assert page.count('<td class=" best">1.0000</td>') == 2  # the largest share, at each number of calls
    assert "Share of answers that are right. Higher is better.</figcaption>" in page
    assert "Lower is better. Bands" not in page and '<td class="">2.00</td>' in page
    assert "<dt>tokens / call</dt><dd>Tokens filled in by a call.</dd>" in page
    assert (tmp_path / "quality_vs_nfe.png").exists()


def test_a_stored_row_without_a_metric_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    before = reported(Task(), tmp_path, output=path)
    write_jsonl(path, [{key: row[key] for key in row if key != "tokens_per_call"} for row in read_jsonl(path)])
    after = reported(Task(), tmp_path, output=path, resume=True)
    assert [row["tokens_per_call"] for row in after] == [row["tokens_per_call"] for row in before]


def test_without_a_layout_all_is_shown_the_verdict_last(tmp_path: Path) -> None:
    class Plain(Task):
        layout = MetricSet.layout

    reported(Plain(), tmp_path)
    first, second, _ = (tmp_path / "table.txt").read_text().split("\n\n")
    assert first.split("\n")[0].split() == ["sampler", "NFE", "temp.", "right", "tokens", "/", "call", "wrong"]
    assert second.split("\n")[0].split() == ["sampler", "NFE", "temp.", "length", "seconds", "calls"]


def test_the_verdict_alone_is_that_of_all_metrics() -> None:
    assert Task().verdict(torch.tensor([[97, 98]])) == 0.5


def test_fills_of_any_set_are_shown(tmp_path: Path) -> None:
    canvases, truth = torch.full((6, 4), 128), torch.full((6, 4), 97)
    metrics = FillMetrics(Task(), canvases, truth, 128)
    (row, *_) = reported(metrics, tmp_path)
    assert row["fills_differ"] == row["fill_error"] == 0 and row["tokens_per_call"] == 2
    assert "fills differ" in (tmp_path / "table.txt").read_text()


def test_mean_calls_are_resampled_as_the_verdict_is() -> None:
    """Where calls vary: a verdict that is the mean of the calls has the replicates of the mean calls."""

    class Calls(MetricSet):
        num_resamples, seed, group = 50, 3, 2

    calls = torch.tensor([3, 3, 1, 1, 8, 8])
    row = Calls().of_calls(calls)
    weights = grouped_weights(6, 2, 50, 3).double()
    assert row["mean_calls"] == 4 and row["mean_calls_low"] < 4 < row["mean_calls_high"]
    expected = (calls.double() @ weights) / weights.sum(0)
    assert row["mean_calls_replicates"] == pytest.approx(expected.tolist(), rel=1e-5)
    assert Calls().of_calls(torch.tensor([4, 4])) == {}
