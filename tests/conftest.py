"""Shared by all tests: golden files, seeds, thread count, hypothesis profile."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings


ROOT = Path(__file__).resolve().parents[1]


def _find_fixtures() -> Path:
    """The golden files lie in `shared/fixtures`, inside the checkout or beside it."""
    candidates = [ROOT / "shared" / "fixtures", ROOT.parent / "shared" / "fixtures"]
    if override := os.environ.get("LSD_SAMPLER_FIXTURES"):
        candidates.insert(0, Path(override))
    return next((path for path in candidates if path.is_dir()), candidates[-1])


FIXTURES = _find_fixtures()

# Slow machines must not turn a passing property into a failure.
settings.register_profile("lsd_sampler", deadline=None, print_blob=True)
settings.load_profile("lsd_sampler")
torch.set_num_threads(1)


def fixture_path(*parts: str) -> Path:
    """A golden file or folder; the test is skipped when this checkout has none."""
    path = FIXTURES.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"golden file {'/'.join(parts)} is not here; set LSD_SAMPLER_FIXTURES to its folder")
    return path


@pytest.fixture
def fixtures_dir() -> Path:
    return fixture_path()


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Each test starts from the same global seeds, and leaves the generators as it found them."""
    state = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.random.set_rng_state(state[2])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds the teacher paths of another."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
