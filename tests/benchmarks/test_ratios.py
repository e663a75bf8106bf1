"""What part of a ratio of perplexities comes from entropy: all of it, of a sampler that is the base solver cooled."""

import math
import subprocess
import sys
from pathlib import Path

from lsd_sampler.evaluation.comparison import SWEEP_SEED
from lsd_sampler.evaluation.rows import Row, write_jsonl


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ratios.py"


def sweep(sampler: str, cooling: float, gain: float) -> list[Row]:
    """Rows on the line `nll = 2 entropy - gain`, where the entropy is the temperature over `cooling`."""
    rows = []
    for temperature in (0.5, 1.0, 1.5):
        entropy = temperature / cooling
        nll = 2 * entropy - gain
        row = {"sampler": sampler, "nfe": 8, "temperature": temperature, "seed": SWEEP_SEED, "judge_nll": nll}
        row |= {"perplexity": math.exp(nll), "unigram_entropy": entropy, "char_trigram_entropy": entropy}
        rows.append(row | {"judge_nll_replicates": [nll] * 3, "unigram_entropy_replicates": [entropy] * 3})
    return rows


def test_a_temperature_has_no_ratio_at_equal_entropy(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "metrics.jsonl", sweep("base", 1, 0) + sweep("cooled", 1.25, 0) + sweep("better", 1, 0.5))
    script = [sys.executable, SCRIPT, tmp_path, "--base", "base"]
    out = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    first, second = out.split("\n\n")
    found = {line.split()[0]: [float(x) for x in line.split()[4:6]] for line in first.splitlines()[2:]}
    assert found["base"] == [1, 1] and found["cooled"] == [round(math.exp(-0.4), 3), 1]
    assert found["better"] == [round(math.exp(-0.5), 3)] * 2
    alone = [float(line.split()[-1]) for line in second.splitlines()[2:]]
    assert alone == [round(math.exp(2 * (t - 1)), 3) for t in (0.5, 1.0, 1.5)]
