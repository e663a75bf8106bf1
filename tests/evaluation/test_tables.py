"""Tables as text: aligned, and without a likelihood that stands alone."""

import pytest

from lsd_sampler.evaluation import format_table


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
