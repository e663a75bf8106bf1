"""`lsd-train --dry-run` knows what a run costs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import MODEL, TINY, records

from lsd_sampler.cli import train
from lsd_sampler.denoisers import MarkovDenoiser


pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--batch-size", "3", "--num-states", "5", "--nfe", "2", "5"],
        ["--count", "bernoulli", "--teacher-steps", "40"],
        ["--length", "20"],
        ["--method", "lsd", "--teacher-steps", "30", "--batch-size", "3"],
        ["--method", "lsd", "--teacher-steps", "30", "--optimizer", "adam", "--epochs", "2"],
    ],
)
def test_dry_run_knows_the_network_calls(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = [*TINY, *options, "--output-dir", str(tmp_path / "out")]
    calls = [0]
    forward = MarkovDenoiser.forward

    def counted(self: MarkovDenoiser, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls[0] += 1
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(MarkovDenoiser, "forward", counted)
    assert train.main([*argv, "--dry-run"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert calls == [0] and not (tmp_path / "out").exists()
    assert plan["model"] == MODEL and plan["num_sequences"] == 8
    assert train.main(argv) == 0
    assert plan["network_calls"] == records(tmp_path / "out")[-1]["network_calls"] == calls[0]
    assert f"Network calls: {calls[0]}." in capsys.readouterr().out
