"""The picture of kappa shows the numbers that were learned."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.choosing_sampler import F64, offset_dependence

from lsd_sampler.learned import dependence_plot
from lsd_sampler.learned.dependence_plot import plot_dependence
from lsd_sampler.sampling.dependence import Dependence


pytest.importorskip("matplotlib")


@pytest.fixture
def figure_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The figure of a dependence, which is saved as well."""

    def draw(kappa: torch.Tensor, layout: str) -> Any:
        dependence = Dependence(kappa.double(), layout)
        dependence.check("dependence")
        kept: list[Any] = []
        save = dependence_plot.save_figure
        with monkeypatch.context() as patch:
            patch.setattr(dependence_plot, "save_figure", lambda *args: (kept.append(args[0]), save(*args)))
            plot_dependence(dependence, tmp_path / "dependence.png", "a $model$")
        assert (tmp_path / "dependence.png").read_bytes().startswith(b"\x89PNG")
        return kept[0]

    return draw


def maps_of(figure: Any) -> dict[str, np.ndarray]:
    panels = [ax for ax in figure.axes if ax.images and ax.get_visible() and ax.get_title()]
    return {ax.get_title(): np.ma.filled(ax.images[0].get_array(), np.nan) for ax in panels}


def test_a_matrix_has_a_map_for_each_bucket(figure_of: Any) -> None:
    """On one scale, without the diagonal."""
    kappa = torch.rand(5, 6, 6, dtype=F64, generator=torch.Generator().manual_seed(0))
    kappa = (kappa + kappa.mT) / 4
    figure = figure_of(kappa, "matrix")
    shown = maps_of(figure)
    names = ["0 to 20", "20 to 40", "40 to 60", "60 to 80", "80 to 100"]
    assert list(shown) == [f"{name} % known" for name in names]
    off = ~np.eye(6, dtype=bool)
    for values, learned in zip(shown.values(), kappa.numpy(), strict=True):
        assert np.isnan(values[~off]).all()
        np.testing.assert_array_equal(values[off], learned[off])
    scales = {ax.images[0].get_clim() for ax in figure.axes if ax.images}
    assert scales == {(0.0, float(kappa.numpy()[:, off].max()))}


def test_offsets_are_lines_that_end_where_nothing_is_left(figure_of: Any) -> None:
    kappa = torch.zeros(2, 200, dtype=F64)
    kappa[:, :4] = offset_dependence().kappa
    kappa[1, 150] = 0.001  # noise: less than 1 % of 0.75
    ax = figure_of(kappa, "offset").axes[0]
    for line, learned_D in zip(ax.lines, kappa, strict=True):
        assert list(line.get_xdata()) == [1, 2, 3]
        assert list(line.get_ydata()) == learned_D[1:4].tolist()
    assert [line.get_label() for line in ax.lines] == ["0 to 50 % known", "50 to 100 % known"]
    assert ax.get_xlabel() == "distance in positions (beyond these at most 0.001)"
    assert "beyond" not in figure_of(kappa[:, :4], "offset").axes[0].get_xlabel()


def test_offsets_in_two_directions_are_cut_in_each(figure_of: Any) -> None:
    kappa = torch.zeros(3, 16, 12, dtype=F64)
    kappa[:, 0, 0], kappa[:, 0, 4], kappa[1, 2, 1] = 0.9, 0.5, 0.25
    figure = figure_of(kappa, "offset_2d")
    for values, learned in zip(maps_of(figure).values(), kappa.numpy(), strict=True):
        assert values.shape == (3, 5) and np.isnan(values[0, 0])
        np.testing.assert_array_equal(values.ravel()[1:], learned[:3, :5].ravel()[1:])
    assert figure.get_supylabel() == "distance in rows" and "distance in columns" in figure.get_supxlabel()


@pytest.mark.parametrize("layout", ["matrix", "offset", "offset_2d"])
@pytest.mark.parametrize("size", [1, 8])
def test_no_dependence_at_all_can_be_drawn(figure_of: Any, layout: str, size: int) -> None:
    figure_of(torch.zeros((2, *[size] * (1 if layout == "offset" else 2)), dtype=F64), layout)
