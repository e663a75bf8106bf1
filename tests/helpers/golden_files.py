"""The golden files of `shared/fixtures`, made by official code on tiny random weights."""

import os
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[2]


def _find_fixtures() -> Path:
    """The golden files lie in `shared/fixtures`, inside the checkout or beside it."""
    candidates = [ROOT / "shared" / "fixtures", ROOT.parent / "shared" / "fixtures"]
    if override := os.environ.get("LSD_SAMPLER_FIXTURES"):
        candidates.insert(0, Path(override))
    return next((path for path in candidates if path.is_dir()), candidates[-1])


FIXTURES = _find_fixtures()


def fixture_path(*parts: str) -> Path:
    """A golden file or folder; the test is skipped when this checkout has none."""
    path = FIXTURES.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"golden file {'/'.join(parts)} is not here; set LSD_SAMPLER_FIXTURES to its folder")
    return path
