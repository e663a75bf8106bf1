"""What a user installs: import cost, version, commands, and the content of the built archives."""

import importlib.util
import json
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml


ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = [
    "accelerate",
    "datasets",
    "fcd_torch",
    "flash_attn",
    "gradio",
    "lm_eval",
    "matplotlib",
    "mauve",
    "rdkit",
    "reasoning_gym",
    "tensorboard",
    "torchmetrics",
    "trackio",
    "wandb",
]


def _run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip().splitlines()[-1]


def test_import_loads_no_optional_package() -> None:
    # diffusers loads accelerate by itself where it is installed: only what we add to that counts.
    code = f"""
import json, sys
from diffusers import DiffusionPipeline, SchedulerMixin
before = set(sys.modules)
import lsd_sampler
print(json.dumps([name for name in {OPTIONAL} if name in set(sys.modules) - before]))
"""
    assert json.loads(_run(code)) == []


def test_import_works_without_optional_packages() -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys({OPTIONAL}))  # None: as if not installed
import lsd_sampler
names = "LSDScheduler", "MaskedDiffusionPipeline", "load_denoiser", "distill"
print(all(hasattr(lsd_sampler, name) for name in names))
"""
    assert _run(code) == "True"


def test_version_is_stated_once() -> None:
    import lsd_sampler

    assert lsd_sampler.__version__ == PROJECT["version"]


@pytest.mark.parametrize("name", sorted(PROJECT["scripts"]))
def test_command_exists(name: str) -> None:
    assert callable(EntryPoint(name, PROJECT["scripts"][name], "console_scripts").load())


def test_core_dependencies_have_lower_bounds_only() -> None:
    assert all(">=" in dep and "==" not in dep and "<" not in dep for dep in PROJECT["dependencies"])


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return out


def test_wheel_holds_the_package_and_nothing_else(archives: Path) -> None:
    names = zipfile.ZipFile(next(archives.glob("*.whl"))).namelist()
    packaged = {name for name in names if not name.startswith(f"lsd_sampler-{PROJECT['version']}.dist-info/")}
    source = ROOT / "lsd_sampler"
    expected = {
        str(path.relative_to(ROOT))
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }
    # the hook that makes the model known to lm-evaluation-harness
    assert packaged == expected | {"_lsd_sampler_lm_eval.py", "lsd_sampler_lm_eval.pth"}
    assert "lsd_sampler/py.typed" in packaged


def test_sdist_holds_no_weights(archives: Path) -> None:
    with tarfile.open(next(archives.glob("*.tar.gz"))) as archive:
        members = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"pyproject.toml", "LICENSE", "README.md", "lsd_sampler/py.typed"} <= members
    assert not [name for name in members if name.startswith("models/") or name.endswith(".safetensors")]


def test_the_citation_names_this_version_and_the_paper_of_the_readme() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["title"], str(cited["version"]), cited["license"]) == (
        "lsd_sampler",
        PROJECT["version"],
        PROJECT["license"],
    )
    assert cited["cff-version"] == "1.2.0" and cited["message"] and cited["authors"]
    (paper,) = cited["references"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert paper["title"] in readme and all(author["family-names"] in readme for author in paper["authors"])
    assert paper["url"].rpartition("/")[2] in readme
