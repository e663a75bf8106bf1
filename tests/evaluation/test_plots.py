"""Plots of an evaluation are written, and rows that cannot be drawn are named."""

from pathlib import Path

import pytest

from lsd_sampler.evaluation import plot_quality_vs_nfe, plot_schedule


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
