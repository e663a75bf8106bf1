"""The benchmark of language models: every driver makes the same calls, and its numbers are those that it prints."""

import json
import os
import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).parents[2]


def test_each_cache_and_sampler_is_beside_the_official_loop(tmp_path: Path) -> None:
    sizes = "--shrink 64 --layers 1 --prompt-tokens 3 --new-tokens 8 --block-length 4 --steps 4 --batch 2".split()
    options = [
        *sizes,
        "--models",
        "llada",
        "dream",
        "--samplers",
        "counts",
        "halton",
        "--json",
        tmp_path / "rows.json",
    ]
    command = [sys.executable, ROOT / "benchmarks" / "language.py", *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    drivers = [("official loop", "none"), *((s, c) for s in ("counts", "halton") for c in ("none", "prefix", "dual"))]
    assert [(row["model"], row["sampler"], row["cache"]) for row in rows] == [
        (model, *driver) for model in ("llada", "dream") for driver in drivers
    ]
    for row in rows:
        assert row["calls"] == 2 and row["tokens"] == 8 and 0 < row["network_seconds"] < row["seconds"]
        assert f"{row['tokens'] / row['seconds']:.2f}" in out


def test_rounding_is_that_of_the_precision(tmp_path: Path) -> None:
    """In float32 a batch is all but the same as each prompt alone; in bfloat16 it differs by about one rounding."""
    sizes = "--shrink 64 --layers 1 --prompt-tokens 5 --new-tokens 8 --block-length 4 --steps 4 --batch 3".split()
    command = [sys.executable, ROOT / "benchmarks" / "language.py", "--rounding", *sizes]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    options = ["--models", "llada", "dream", "--json", tmp_path / "rows.json"]
    out = subprocess.run([*command, *options], capture_output=True, text=True, check=True, env=env).stdout
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [(row["model"], row["dtype"]) for row in rows] == [
        (model, dtype) for model in ("llada", "dream") for dtype in ("float32", "bfloat16")
    ]
    for row in rows:
        low = row["dtype"] == "bfloat16"
        assert 0 <= row["relative"] <= (8 * 2.0**-7 if low else 64 * 2.0**-23)
        assert 0 <= row["other"] <= 1 and f"{row['relative']:.2e}" in out
