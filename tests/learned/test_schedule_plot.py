"""The figure of a learned schedule."""

from pathlib import Path

import pytest

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
