"""Plots of an evaluation are written, and rows that cannot be drawn are named."""

from pathlib import Path

import pytest

from lsd_sampler.evaluation import plot_quality_vs_nfe, plot_schedule, plots


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


def test_right_answers_are_drawn_with_every_name_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of swept samplers are long; of their constants those count that the curve is read off between."""
    pytest.importorskip("matplotlib")
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, *_: figures.append(figure))
    names = ["tweedie", "tweedie@confidence_temperature=0:entropy", "fast_dllm_threshold@threshold=0.4/0.5/0.6/0.7"]
    rows = [
        {"sampler": name, "nfe": nfe, "mean_calls": nfe, "right_share": nfe / 20, "right_share_low": nfe / 21,
         "right_share_high": nfe / 19}
        for name in names for nfe in (2, 4, 8)
    ]  # fmt: skip
    curve = [row | {"sampler": f"c={i}", "read": "yes" if i else None} for i, row in enumerate(rows[-3:])]
    plots.plot_accuracy(rows, {names[-1]: curve}, tmp_path / "accuracy.png")
    (figure,) = figures
    figure.canvas.draw()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names
    box, whole = legend.get_window_extent(), figure.bbox
    assert 0 <= box.x0 and box.x1 <= whole.x1 and 0 <= box.y0
    lines = {line.get_label(): line.get_xdata().tolist() for line in figure.axes[0].get_lines()}
    assert lines[names[0]] == [2, 4, 8] and lines[names[-1]] == [4, 8]
    with pytest.raises(ValueError, match="`rows`"):
        plots.plot_accuracy([], {}, tmp_path / "accuracy.png")
