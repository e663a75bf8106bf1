"""The page of verdicts: the best, what is level with it, and where one's own sampler stands."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
from helpers.scripts import load_script

from lsd_sampler.evaluation.comparison import SWEEP_SEED
from lsd_sampler.evaluation.rows import Row, write_jsonl


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "verdicts.py"


def row(sampler: str, value: float, spread: float, seed: int = 0, num_samples: int = 64) -> Row:
    replicates = [value - spread, value, value + spread]
    same = {"sampler": sampler, "nfe": 8, "seed": seed, "num_samples": num_samples}
    return same | {"distance": value, "distance_replicates": replicates}


def folder(path: Path, rows: Sequence[Row]) -> Path:
    path.mkdir()
    write_jsonl(path / "metrics.jsonl", rows)
    (path / "summary.json").write_text(json.dumps({"verdict": "distance"}))
    return path


@pytest.fixture(scope="module")
def script() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)  # it imports its neighbour
        return load_script(SCRIPT)


def test_what_is_level_and_what_is_behind(script: ModuleType, tmp_path: Path) -> None:
    """Replicates are paired: a sampler whose distances all lie higher by one number is behind for sure."""
    rows = [row("best", 1.0, 0.1), row("level", 1.1, 0.5), row("behind", 1.2, 0.1), row("best", 0.5, 0.1, SWEEP_SEED)]
    found = folder(tmp_path / "found", rows)
    for own, said in (("best", "level"), ("level", "level"), ("behind", "behind by 0.2 (0.2 to 0.2)"), ("other", "-")):
        same = {"domain": "found", "nfe": 8, "best": "best", "value": 1.0, "level": "level"}
        assert script.verdicts([found], [own]) == [same | {"ours": said}]


def test_joined_folders_are_one_domain(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = folder(tmp_path / "one", [row("near", 1.0, 0.1), row("far", 2.0, 0.1), row("far", 1.5, 0.1) | {"nfe": 16}])
    two = folder(tmp_path / "two", [row("best", 0.5, 0.1)])
    monkeypatch.setattr("sys.argv", ["verdicts.py", f"{one}+{two}", "--ours", "near"])
    script.main()
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 3 and table[2].split()[:4] == ["one", "8", "best", "0.5000"]
    assert table[2].rstrip().endswith("behind by 0.5 (0.5 to 0.5)")
    fewer = folder(tmp_path / "fewer", [row("best", 0.5, 0.1, num_samples=32)])
    with pytest.raises(ValueError, match=r"one and .*fewer differ in .* number of samples"):
        script.verdicts([one, fewer], [])
