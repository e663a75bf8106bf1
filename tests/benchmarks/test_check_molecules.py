"""The figures of `lsd-eval --molecules` are those of a plain loop around the network, for learned samplers too."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny_molecules import write_model

from lsd_sampler.cli import evaluate, train


ROOT = Path(__file__).parents[2]
SAMPLERS = ["tweedie", "tweedie:halton", "tweedie:confidence:cosine"]


def test_a_plain_loop_finds_the_same(tmp_path: Path) -> None:
    """No figure is 4 standard errors away. By chance, one in 16,000 would be, and 20 are compared."""
    for library in ("rdkit", "fcd_torch"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    model, out = write_model(tmp_path / "model", "CON"), str(tmp_path / "out")
    (tmp_path / "real.smi").write_text("\n".join(f"{'C' * n}{e}" for n in range(1, 9) for e in ("O", "N", "OC", "Br")))
    real = ["--reference", str(tmp_path / "real.smi")]
    size = ["--nfe", "3", "--num-samples", "512", "--temperatures", "0.8", "--headline-limit", "3"]
    learned = str(tmp_path / "learned")
    method = ["--method", "path_kl", "--order", "halton", "--nfe", "3", "--num-sequences", "16"]
    assert train.main(["--model", str(model), *method, "--output-dir", learned]) == 0
    samplers = ["--baselines", *SAMPLERS, "--sampler", learned]
    argv = ["--model", str(model), "--molecules", *real, *size, *samplers, "--output-dir", out]
    assert evaluate.main(argv) == 0
    script = [sys.executable, str(ROOT / "benchmarks" / "check_molecules.py"), out, "--model", str(model), *real]
    script += ["--sampler", learned]
    done = subprocess.run([*script, "--calls", "3"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^(\S+) +(\w+) +([\d.]+) +([\d.]+) +(-?[\d.]+|nan)$", done.stdout, re.MULTILINE)
    assert [row[0] for row in found] == [name for name in [*SAMPLERS, "learned"] for _ in range(6)]
    errors = [float(row[-1]) for row in found if row[1] != "valid"]  # all are
    assert len(errors) == 20 and max(map(abs, errors)) < 4, done.stdout
