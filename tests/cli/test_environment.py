"""`lsd-train --env`: versions for bug reports."""

import pytest
import torch

from lsd_sampler.cli import train


def test_versions_for_bug_reports(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main(["--env"])
    assert stop.value.code == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["torch"].startswith(torch.__version__.split("+")[0])
    assert {"lsd_sampler", "Python", "platform", "diffusers", "accelerate", "cpu"} <= set(lines)
