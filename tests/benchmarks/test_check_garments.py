"""The check of the figures of image models: its own sampler and features against known values."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers.scripts import load_script
from helpers.tiny_garments import classifier, codebook, save_garments

from lsd_sampler.cli import evaluate


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "check_garments.py"


def load() -> ModuleType:
    return load_script(SCRIPT)


def test_features_and_pictures_are_the_library_s() -> None:
    tokens = torch.randint(7, (6, 9), generator=torch.Generator().manual_seed(0))
    images = load().pictures(tokens.numpy(), codebook().patches.numpy())
    np.testing.assert_array_equal(images, codebook().decode(tokens).numpy())
    with torch.no_grad():
        expected = classifier().features(torch.from_numpy(images))
    torch.testing.assert_close(load().features(images, classifier().state_dict()), expected)


def test_what_lsd_eval_says_is_what_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six figures within 4.5 standard errors: false alarms less than once in 10,000 seeds. One that is wrong in the
    rows is seen.
    """
    save_garments(tmp_path / "model")
    baselines = "--baselines tweedie tweedie:halton tweedie:confidence:cosine --nfe 3 --temperatures 1".split()
    argv = ["--model", str(tmp_path / "model"), *baselines, "--guidance-scale", "1", "--num-samples", "400"]
    assert evaluate.main([*argv, "--headline-limit", "3", "--output-dir", str(tmp_path / "out")]) == 0

    def errors() -> list[float]:
        monkeypatch.setattr(
            sys, "argv", ["x", str(tmp_path / "out"), "--model", str(tmp_path / "model"), "--nfe", "3"]
        )
        capsys.readouterr()
        load().main()
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 8
        return [abs(float(line.split()[-1])) for line in lines[2:]]

    assert max(errors()) < 4.5
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    rows[1]["class_accuracy"] += 0.3
    (tmp_path / "out" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert max(errors()) > 4.5
