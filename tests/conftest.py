"""Shared by all tests: golden files, seeds, thread count, hypothesis profile."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.golden_files import fixture_path
from hypothesis import settings

from lsd_sampler.cards import sampler_card as cards


# Slow machines must not turn a passing property into a failure.
settings.register_profile("lsd_sampler", deadline=None, print_blob=True)
settings.load_profile("lsd_sampler")
torch.set_num_threads(1)


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


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plot costs more than all the rest of a small run."""
    monkeypatch.setattr(cards, "_plot", lambda *_: False)
