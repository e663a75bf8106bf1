"""The README's snippets and the examples run as they stand."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


ROOT = Path(__file__).parents[2]
needs_models = pytest.mark.skipif(
    not (ROOT / "models" / "books-radd" / "model.safetensors").exists(), reason="models/ is not in this copy"
)


def run(*argv: str | Path, cwd: Path) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *argv], cwd=cwd, env=env, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


PASTED = """
import sys
from pathlib import Path

from diffusers import AmusedPipeline

sys.path.append(sys.argv[1])
from helpers.tiny_pipelines import amused

AmusedPipeline.from_pretrained = lambda name: amused()  # nothing is downloaded
for block in Path("blocks.txt").read_text().split("\\0"):
    exec(block, {})
print("all of them")
"""


@needs_models
def test_readme_snippets(tmp_path: Path) -> None:
    """Each runs when it is pasted into a fresh interpreter, at the root of the clone."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 2
    (tmp_path / "blocks.txt").write_text("\0".join(blocks))
    (tmp_path / "pasted.py").write_text(PASTED)
    out = run("pasted.py", ROOT / "tests", cwd=tmp_path)
    assert out.count("It was") >= 2 and "all of them" in out
    assert (tmp_path / "books-sampler" / "scheduler_model.safetensors").exists()


def train(folder: Path, kind: str, steps: int, *more: str) -> None:
    text = folder.parent / "text.txt"
    if not text.exists():
        text.write_text("".join(f"{i} and {i + 1} make {2 * i + 1}, said the clerk.\n" for i in range(3000)))
    sizes = ["--vocab-size", "300", "--hidden-size", "16", "--length", "16", "--blocks", "1", "--batch-size", "4"]
    sizes += ["--heads", "2", "--valid-windows", "64", "--warmup", "2", "--device", "cpu"]
    script = ROOT / "examples" / "train_text_model.py"
    run(
        script, "--kind", kind, "--text", text, "--valid", text, "--output-dir", folder, "--steps", str(steps), *sizes,
        *more, cwd=folder.parent,
    )  # fmt: skip


def test_training_a_text_model_resumes_and_exports(tmp_path: Path) -> None:
    """The same call gives the same weights; called again, a finished run only writes its files anew."""
    train(tmp_path / "whole", "masked", 6)
    train(tmp_path / "cut", "masked", 6)
    state = torch.load(tmp_path / "cut" / "training_state.pt", weights_only=True)
    assert state["step"] == 6
    train(tmp_path / "cut", "masked", 6)  # nothing left to do: exports again
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(first[key], second[key]) for key in first)
    rows = [json.loads(line) for line in (tmp_path / "cut" / "training.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 6 and rows[-1]["valid_loss"] > 0
    assert "Validation loss" in (tmp_path / "cut" / "README.md").read_text()
    train(tmp_path / "judge", "causal", 2, "--tokenizer", str(tmp_path / "whole" / "tokenizer.json"))
    assert (tmp_path / "judge" / "model.safetensors").exists()


@needs_models
def test_demo(tmp_path: Path) -> None:
    """From anywhere, as a script: plan, table and files. Its domains are tested in `test_demo.py`."""
    script = ROOT / "examples" / "demo.py"
    out = run(script, "--quick", "--samples", "2", "--only", "books", "--output-dir", "demo", cwd=tmp_path)
    assert "learned" in out and "real text" in out
    assert {"table.txt", "summary.json", "books"} == {path.name for path in (tmp_path / "demo").iterdir()}


@needs_models
def test_compare_methods(tmp_path: Path) -> None:
    out = run(ROOT / "examples" / "compare_methods.py", "--quick", "--output-dir", "demo", cwd=tmp_path)
    assert "path_kl halton" in out and "real text" in out
    for name in ("metrics.jsonl", "quality_vs_nfe.png", "samples.md", "books/path_kl-halton/README.md"):
        assert (tmp_path / "demo" / name).stat().st_size > 0
