"""The demo: each domain has a table of all samplers, and what is missing costs one sentence and nothing else."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.scripts import load_script

from lsd_sampler import LSDScheduler, load_denoiser


ROOT = Path(__file__).parents[2]
EXAMPLES, MODELS = ROOT / "examples", ROOT / "models"
PLAIN = {
    "sudoku": ["base", "halton", "confidence:cosine", "margin", "entropy"],
    "molecules": ["base", "halton", "confidence:cosine"],
    "garments": ["base", "halton", "confidence:cosine", "margin:cosine"],
    "books": ["base", "halton"],
}
LOADED = [name for name in PLAIN if name != "sudoku"]
FOLDERS = {"molecules": "molecules", "garments": "garments", "books": "books-radd"}
NFE = {"sudoku": (2, 4), "molecules": (2, 8), "garments": (2, 8), "books": (2, 8)}
pytestmark = pytest.mark.skipif(
    not (MODELS / "books-radd" / "model.safetensors").exists(), reason="models/ is not in this copy"
)


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few calls, hardly any search, and a folder of models without learned samplers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    for name, nfe in NFE.items():
        monkeypatch.setattr(importlib.import_module(f"demo_domains.{name}"), "NFE", nfe)
    search = {"method": "forced_kl", "search_evaluations": 256, "num_sequences": 16}
    monkeypatch.setattr("demo_domains.sudoku.QUICK", search)
    monkeypatch.setattr("demo_domains.garments.GRID_NFE", (2,))
    (tmp_path / "models").mkdir()
    for path in MODELS.iterdir():
        if not path.name.endswith("-default"):
            (tmp_path / "models" / path.name).symlink_to(path)


def stand_in(domain: str) -> None:
    """A sampler where the learned one of a domain is looked for."""
    config = load_denoiser(str(MODELS / FOLDERS[domain])).scheduler_config()
    LSDScheduler(**config, order="halton").save_pretrained(f"models/{domain}-default")


def demo(capsys: pytest.CaptureFixture[str], *domains: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a run that is as small as it can be."""
    argv = ["demo", "--quick", "--samples", "2", "--models", "models", "--output-dir", "out", "--only", *domains]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", argv)
        load_script(EXAMPLES / "demo.py").main()
    return int(ended.value.code or 0), *capsys.readouterr()


def rows(domain: str) -> list[dict[str, Any]]:
    return json.loads(Path("out/summary.json").read_text())["domains"][domain]["rows"]


def calls(domain: str) -> dict[str, list[int]]:
    """Sampler -> the numbers of calls in the table, without those of one token a call and of real data."""
    found: dict[str, list[int]] = {}
    for row in rows(domain):
        if row["nfe"] in NFE[domain]:
            found.setdefault(row["sampler"], []).append(row["nfe"])
    return found


@pytest.mark.parametrize("domain", PLAIN)
def test_the_table_of_a_domain_has_all_samplers(domain: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The plain ones and the learned one at each number of calls, the figure within its interval; all files exist."""
    if domain != "sudoku":
        stand_in(domain)
    code, out, _ = demo(capsys, domain)
    assert code == 0
    assert calls(domain) == dict.fromkeys([*PLAIN[domain], "learned"], list(NFE[domain]))
    found = json.loads(Path("out/summary.json").read_text())["domains"][domain]
    for row in rows(domain):
        assert row[found["key"] + "_low"] <= row[found["key"]] <= row[found["key"] + "_high"]
    assert found["sentence"] or domain == "books"
    listed = [Path(line.strip()) for line in out.split("Files:\n")[1].splitlines()]
    assert Path("out/table.txt") in listed and all(path.exists() for path in listed)
    written = {path for path in Path("out").rglob("*") if path.is_file()}
    assert {path for path in written if path not in listed and path.parent not in listed} == set()
    pictures = {"molecules": "molecules.png", "garments": "picture_grid.png"}
    assert domain not in pictures or Path("out", domain, pictures[domain]) in listed
    assert f"{domain} took" in out


@pytest.mark.parametrize("domain", LOADED)
def test_a_missing_learned_sampler_is_one_sentence(domain: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = demo(capsys, domain)
    assert code == 0 and out.count(f"No learned sampler in models/{domain}-default") == 1
    assert calls(domain) == dict.fromkeys(PLAIN[domain], list(NFE[domain]))


def test_without_rdkit_molecules_have_no_figure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rdkit", None)
    stand_in("molecules")
    code, out, _ = demo(capsys, "molecules")
    assert code == 0 and out.count("rdkit is not installed") == 1
    assert calls("molecules").keys() == {*PLAIN["molecules"], "learned"}
    assert all(row["valid"] is None for row in rows("molecules"))
    assert "learned, 8 calls" in Path("out/molecules/smiles.txt").read_text()


def test_a_domain_that_fails_leaves_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    Path("models/garments").unlink()
    code, out, err = demo(capsys, "garments", "molecules")
    assert code == 1 and "garments failed: No model in models/garments" in err and "Traceback" not in err
    assert calls("molecules") == dict.fromkeys(PLAIN["molecules"], list(NFE["molecules"]))
    assert "garments" not in json.loads(Path("out/summary.json").read_text())["domains"]
    plan = out.partition("== garments")[0]
    assert "garments" in plan and "molecules" in plan and "books" not in plan and "sudoku" not in plan
    assert "This takes about" in plan and "noisy" in plan
