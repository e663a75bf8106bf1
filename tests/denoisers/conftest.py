"""Fixtures of several test files on denoisers."""

from pathlib import Path

import pytest
from helpers.tiny_language_models import MASKED_LMS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small BERT."""
    MASKED_LMS["bert"](tmp_path / "bert")
    return tmp_path / "bert"
