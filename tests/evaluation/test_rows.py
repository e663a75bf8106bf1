"""Rows on disk: JSONL, all or nothing."""

import math
from pathlib import Path

import pytest

from lsd_sampler.evaluation import append_jsonl, read_jsonl, write_jsonl


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
