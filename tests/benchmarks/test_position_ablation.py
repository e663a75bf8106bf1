"""The ablation: what its figures are, on exact samplers, and that it goes on with what it has."""

import math
import runpy
import sys
from pathlib import Path

import pytest
import torch

from lsd_sampler import LSDScheduler
from lsd_sampler.denoisers import sudoku4
from lsd_sampler.evaluation import write_jsonl


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "position_ablation.py"
NAMES = runpy.run_path(str(SCRIPT))
PLAIN = LSDScheduler(**sudoku4().scheduler_config())


def test_one_token_a_call_costs_the_entropy_and_makes_valid_samples() -> None:
    """Whatever is revealed when: each of 288 grids has the same probability. With clues it is that given them."""
    nats = NAMES["priced"]("sudoku4", PLAIN, 16, 6)
    torch.testing.assert_close(nats, torch.full_like(nats, math.log(288)), rtol=0, atol=1e-9)
    given = NAMES["priced"]("sudoku4:clues=4", PLAIN, 16, 6)
    assert bool((given < nats - math.log(2)).all())
    assert NAMES["judged"]("sudoku4", PLAIN, 16, 24) == ("valid_share", 1.0)


def test_the_cost_of_one_call_is_the_sum_of_the_entropies() -> None:
    """All cells in one call: 16 times log 4."""
    assert float(NAMES["priced"]("sudoku4", PLAIN, 1, 4).mean()) == pytest.approx(16 * math.log(4), abs=1e-9)


def test_rows_that_are_kept_are_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each with its own figure, mean and error; and a mark where a simple order was taken."""
    rows, sizes = [], {"num_sequences": 8, "search_evaluations": 16, "num_samples": 4}
    for i, variant in enumerate(NAMES["VARIANTS"]):
        for model, nfe in NAMES["TASKS"].items():
            figure = "reverse_kl" if model.startswith("countdown") else "valid_share"
            for M in nfe:
                row = {"model": model, "variant": variant, "nfe": M, "above": i / 4 + M, "error": M / 64}
                rows.append(
                    row | {"figure": figure, "value": i / 64, "simple": variant == "all", "seconds": 1} | sizes
                )
    write_jsonl(tmp_path / "rows.jsonl", rows)
    argv = [f"--{name.replace('_', '-')}={value}" for name, value in sizes.items()]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(tmp_path), *argv])
    NAMES["main"]()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(NAMES["VARIANTS"])
    assert "sudoku4, 3 calls: nats above, valid" in lines[0] and "6 calls: nats above, reverse KL" in lines[0]
    assert lines[2].startswith("| all | 3.00 (0.05), 0.000 * | 4.00 (0.06), 0.000 * |")
    assert lines[3].startswith("| no own | 3.25 (0.05), 0.016 | 4.25 (0.06), 0.016 |")
