"""Tables, JSONL, plots and the HTML page."""

import math
from pathlib import Path

import pytest

from lsd_sampler.evaluation import (
    append_jsonl,
    format_table,
    plot_quality_vs_nfe,
    plot_schedule,
    read_jsonl,
    write_jsonl,
)


def test_table_is_aligned_and_refuses_likelihood_without_entropy() -> None:
    rows = [
        {"sampler": "base", "nfe": 8, "x": 0.12345, "texts": ["a"]},
        {"sampler": "ours, long", "nfe": 16, "x": None},
    ]
    assert format_table(rows).splitlines() == [
        "sampler     nfe      x",
        "----------  ---  -----",
        "base          8  0.123",
        "ours, long   16      -",
    ]
    lines = format_table(rows, {"sampler": "who", "x": "value"}, markdown=True, digits=1).splitlines()
    assert lines[:3] == ["| who        | value |", "| ---------- | ----: |", "| base       |   0.1 |"]
    assert "1.0e-06" in format_table([{"x": 1e-6}])
    with pytest.raises(ValueError, match="entropy"):
        format_table([{"judge_nll": 3.0}])
    assert "4.000" in format_table([{"judge_nll": 3.0, "sequence_entropy": 4.0}])
    for likelihood in ("perplexity", "word_perplexity", "cross_entropy"):
        with pytest.raises(ValueError, match=likelihood):
            format_table([{likelihood: 3.0}])
    with pytest.raises(ValueError, match="entropy"):  # the column is there, the value is not
        format_table([{"perplexity": 3.0, "unigram_entropy": None}])
    with pytest.raises(ValueError, match="`rows`"):
        format_table([])


def test_jsonl_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    write_jsonl(path, [{"x": 1.5, "name": "é"}, {"x": math.inf}])
    append_jsonl(path, {"x": math.nan})
    assert read_jsonl(path) == [{"x": 1.5, "name": "é"}, {"x": None}, {"x": None}]
    assert [file.name for file in path.parent.iterdir()] == ["rows.jsonl"]
    for write in (append_jsonl, lambda path, row: write_jsonl(path, [row])):
        with pytest.raises(ValueError, match="entropy"):
            write(path, {"perplexity": 3.0})
    path.write_text('{"x": 1}\nnot json\n{"x": 2}\n')
    with pytest.raises(ValueError, match="line 2"):
        read_jsonl(path)


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"x": 1}])
    with pytest.raises(TypeError):
        write_jsonl(path, [{"x": object()}])
    assert read_jsonl(path) == [{"x": 1}]


def test_plots_are_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [
        {"sampler": name, "nfe": nfe, "reverse_kl": value / nfe, "reverse_kl_low": 0.9 * value / nfe,
         "reverse_kl_high": 1.1 * value / nfe, "bigram_tv": 0.0 if nfe == 32 else 1 / nfe}
        for name, value in (("base", 14.0), ("ours", 4.0)) for nfe in (4, 8, 16, 32)
    ]  # fmt: skip
    quality = tmp_path / "plots" / "quality.png"
    plot_quality_vs_nfe(rows, quality, ["reverse_kl", "bigram_tv"], "countdown", {"reverse_kl": 1e-3})
    schedule = tmp_path / "schedule.png"
    plot_schedule({"4 calls": [1, 0.9, 0.6, 0.3, 0]}, schedule, {"4 calls": [1.0, 1.1, 1.2, 1.0]})
    for path in (quality, schedule):
        assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="entropy"):
        plot_quality_vs_nfe([rows[0] | {"judge_nll": 1.0}], quality, ["judge_nll"])
    with pytest.raises(ValueError, match="`rows`"):
        plot_quality_vs_nfe([], quality, ["x"])
