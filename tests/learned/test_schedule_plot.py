"""The figure of a learned schedule."""

from pathlib import Path
from typing import Any

import pytest

from lsd_sampler.learned import schedule_plot
from lsd_sampler.learned.schedule_plot import plot_schedule


def test_coefficients_have_a_panel_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    times, sizes = {"2 calls": [1, 0.5, 0.0]}, []
    for name, coefficients in (("times.png", None), ("both.png", {"2 calls": [1.0, 1.5]})):
        plot_schedule(times, tmp_path / name, coefficients)
        with Image.open(tmp_path / name) as image:
            sizes.append(image.size)
    (width, height), (wider, same) = sizes
    assert wider > 1.5 * width and same == height


def test_no_schedule_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`schedules` must not be empty"):
        plot_schedule({}, tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_what_choices_leave_open_and_what_was_measured_take_the_place_of_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    kept: list[Any] = []
    monkeypatch.setattr(schedule_plot, "save_figure", lambda figure, *_: kept.append(figure))
    left, masked = {"2 calls (positions)": [1, 0.75, 0.0]}, {"2 calls (positions)": [0.5, 0.0]}
    plot_schedule({}, tmp_path / "x.png", open_after=left, masked_after=masked)
    plot_schedule({"1 calls": [1, 0.5]}, tmp_path / "x.png", {}, open_after=left)
    (opened, measured), (_, times) = (figure.axes for figure in kept)
    drawn = {line.get_label(): line.get_xydata().tolist() for line in opened.lines}
    assert drawn == {"uniform": [[0, 1], [1, 0]], "2 calls (positions)": [[0, 1], [0.5, 0.75], [1, 0]]}
    assert measured.lines[1].get_xydata().tolist() == [[0.5, 0.5], [1, 0]]
    assert times.lines[1].get_xydata().tolist() == [[0, 1], [1, 0.5]]
    assert "product of (1 - share)" in opened.get_ylabel() and "masked" in measured.get_title()
