"""A solver and an order of one's own: one class and one registration take each to card, summary, table and page."""

from pathlib import Path

import pytest
import torch

from lsd_sampler.cli import evaluate, train
from lsd_sampler.sampling.noise import NoiseSchedule
from lsd_sampler.sampling.orders import ORDERS, Order
from lsd_sampler.sampling.solvers import SOLVERS, Euler


MODEL = ["--model", "countdown:V=4,L=16"]


class Midpoint(Euler):
    """Euler's step with the rate of noise at its middle."""

    name = "midpoint"

    def score_weight(self, noise: NoiseSchedule, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return (t - s) * noise.rate((t + s) / 2)


class OutsideIn(Order):
    """From both ends to the middle."""

    name = "outside_in"

    def keys(self, u_BL: torch.Tensor, shift_B2: torch.Tensor, canvas_shape: tuple[int, ...]) -> torch.Tensor:
        place_L = torch.arange(u_BL.shape[1], device=u_BL.device)
        return torch.minimum(place_L, place_L.flip(0)) + u_BL


def test_they_get_to_card_summary_table_and_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for registry, part in ((SOLVERS, Midpoint), (ORDERS, OutsideIn)):
        monkeypatch.setattr(registry, "_parts", {name: registry[name] for name in registry.names()})
        registry.register(part.name, part())
    sampler, report = tmp_path / "sampler", tmp_path / "report"
    learn = ["--method", "path_kl", "--solver", "midpoint", "--order", "outside_in", "--nfe", "2", "4"]
    assert train.main([*MODEL, *learn, "--num-sequences", "4", "--output-dir", str(sampler)]) == 0
    assert "   4 calls: " in capsys.readouterr().out
    card = (sampler / "README.md").read_text()
    assert "`midpoint`" in card and "`outside_in`" in card
    options = ["--baselines", "midpoint:outside_in", "--nfe", "2", "--num-samples", "16", "--output-dir", str(report)]
    assert evaluate.main([*MODEL, "--sampler", str(sampler), *options]) == 0
    assert "midpoint:outside_in" in capsys.readouterr().out
    assert "midpoint:outside_in" in (report / "table.txt").read_text()
    assert "midpoint:outside_in" in (report / "report.html").read_text()
