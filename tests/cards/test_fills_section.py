"""The section of a card on how the fills of partly given canvases vary."""

from pathlib import Path

import torch
from helpers.small_distillations import pipeline_of

from lsd_sampler import DistillConfig, distill
from lsd_sampler.cards import save_sampler
from lsd_sampler.cards.fills_section import fills_section
from lsd_sampler.denoisers import countdown
from lsd_sampler.sampling.fills import fill_shares


ONE, OTHER = torch.tensor([[0, 1, 2], [0, 1, 2]]), torch.tensor([[0, 2, 1], [1, 1, 2]])
MASKED = torch.tensor([[True, True, False], [False, True, False]])


def test_the_card_shows_what_a_run_measured(tmp_path: Path) -> None:
    """And no card of another run has the section."""
    records: list[dict] = []
    config = DistillConfig(nfe=(2,), num_sequences=4, method="lsd")
    scheduler = distill(pipeline_of(countdown(4, 8)), config, log=records.append)
    for measured in ([], [{"event": "fills", "nfe": 2, **fill_shares(ONE, OTHER, MASKED, ONE)}]):
        save_sampler(scheduler, tmp_path, model="countdown:V=4,L=8", config=config, records=[*records, *measured])
        card = (tmp_path / "README.md").read_text()
        assert ("## How its fills vary" in card) == bool(measured)
    assert "| network calls | two fills differ | fill / truth | canvases |\n|--:|--:|--:|--:|\n" in card
    assert "| 2 | 0.3333 (0.2222) | 0.1667 (0.1111) | 2 |" in card


def test_without_a_truth_there_is_no_such_column() -> None:
    section = fills_section([{"event": "fills", "nfe": 4, **fill_shares(ONE, OTHER, MASKED)}])
    assert "| 4 | 0.3333 (0.2222) | 2 |" in section and "truth |" not in section
