"""A failure after the work is a warning, and the work is kept."""

import sys
from pathlib import Path
from typing import Any

import pytest

from lsd_sampler.cli import evaluate, train
from lsd_sampler.evaluation import plots
from lsd_sampler.learned import schedule_plot


PLOTS = {"schedule.png", "quality_vs_nfe.png"}


MODEL = "countdown:V=4,L=8"


def commands(model: str, folder: Path) -> list[list[str]]:
    train_argv = ["--model", model, "--method", "path_kl", "--nfe", "2", "--num-sequences", "4"]
    eval_argv = ["--model", model, "--nfe", "2", "4", "--num-samples", "8"]
    return [[*train_argv, "--output-dir", str(folder / "sampler")], [*eval_argv, "--output-dir", str(folder / "eval")]]


def run_both(folder: Path) -> None:
    train_argv, eval_argv = commands(MODEL, folder)
    assert train.main(train_argv) == 0
    assert evaluate.main(eval_argv) == 0


def written(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("error", [RuntimeError("no font\nmore"), OSError("no room"), ImportError("numpy too old")])
def test_a_plot_that_fails_is_a_warning(
    error: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Card and report are written; no plot of an earlier run stays beside them."""

    def fails(*_: Any, **__: Any) -> None:
        raise error

    for folder, name in (("sampler", "schedule.png"), ("eval", "quality_vs_nfe.png"), ("eval", "frontier.png")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_bytes(b"of an earlier run")
    for module in (plots, schedule_plot):
        monkeypatch.setattr(module, "new_figure", fails)
    run_both(tmp_path)
    err = capsys.readouterr().err
    reason = str(error).splitlines()[0]
    for name in PLOTS:
        assert err.count(f"Warning: No {name}: {reason}") == 1
    assert {"README.md", "table.txt", "summary.json", "report.html"} <= written(tmp_path)
    assert not (PLOTS | {"frontier.png"}) & written(tmp_path)
    assert "schedule.png" not in (tmp_path / "sampler" / "README.md").read_text()


def test_without_matplotlib_both_commands_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    run_both(tmp_path)
    err = capsys.readouterr().err
    for name in PLOTS:
        assert f"No {name}, as matplotlib is not installed: `pip install" in err
    assert "Warning" not in err and not PLOTS & written(tmp_path)


def test_a_card_or_a_page_that_cannot_be_made_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sampler and the table are there; a card in an encoding of its own stays as it was."""

    def fails(*_: Any, **__: Any) -> str:
        raise KeyError("a metric of one's own")

    (tmp_path / "sampler").mkdir()
    card = tmp_path / "sampler" / "README.md"
    card.write_bytes("naïve".encode("latin-1"))
    monkeypatch.setattr("lsd_sampler.evaluation.html.render", fails)
    run_both(tmp_path)
    err = capsys.readouterr().err
    assert f"Warning: The card {card} does not tell of this run: 'utf-8' codec" in err
    assert "Warning: No report.html: " in err
    assert card.read_bytes() == "naïve".encode("latin-1")
    assert {"scheduler_model.safetensors", "config.json", "metrics.jsonl", "table.txt"} <= written(tmp_path)
