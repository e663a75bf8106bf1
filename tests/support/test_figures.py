"""Figures depend neither on the environment nor on names in them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lsd_sampler.denoisers import countdown
from lsd_sampler.evaluation import plot_quality_vs_nfe, plot_schedule


PLOTS = {"schedule.png", "quality_vs_nfe.png"}


def commands(model: str, folder: Path) -> list[list[str]]:
    train_argv = ["--model", model, "--method", "path_kl", "--nfe", "2", "--num-sequences", "4"]
    eval_argv = ["--model", model, "--nfe", "2", "4", "--num-samples", "8"]
    return [[*train_argv, "--output-dir", str(folder / "sampler")], [*eval_argv, "--output-dir", str(folder / "eval")]]


def written(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_neither_environment_nor_names_can_break_a_plot(tmp_path: Path) -> None:
    """A notebook's backend, a matplotlibrc that wants LaTeX, and a model and a folder with a `$` in their names."""
    pytest.importorskip("matplotlib")
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfigure.dpi: 7\n")
    countdown(4, 8).save_pretrained(tmp_path / "a$b^$c")
    argvs = commands(str(tmp_path / "a$b^$c"), tmp_path / "$x^$")
    code = f"""
import sys
from lsd_sampler.cli import evaluate, train
codes = [train.main({argvs[0]!r}), evaluate.main({argvs[1]!r})]
import matplotlib
assert matplotlib.rcParams["text.usetex"]  # of other figures of this process
sys.exit(codes != [0, 0])
"""
    env = os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "MATPLOTLIBRC": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert PLOTS | {"README.md", "report.html"} <= written(tmp_path / "$x^$")
    page = (tmp_path / "$x^$" / "eval" / "report.html").read_text()
    assert page.count("<svg") == 2


def test_plots_are_of_one_size_whatever_matplotlib_was_set_to(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    for name, settings in (("plain.png", {}), ("set.png", {"savefig.bbox": "tight", "font.size": 40.0})):
        with matplotlib.rc_context(settings):
            plot_schedule({"2 calls": [1, 0.5, 0]}, tmp_path / name, title="x")
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "set.png").read_bytes()


def test_a_dollar_in_a_samplers_name_is_a_dollar(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [{"sampler": "$ours^$", "nfe": nfe, "reverse_kl": 1 / nfe} for nfe in (2, 4)]
    plot_quality_vs_nfe(rows, tmp_path / "x.png", {"reverse_kl": "$\\nonsense"}, title="100 $ ^$")
    with Image.open(tmp_path / "x.png") as image:
        assert image.size[0] > 100
