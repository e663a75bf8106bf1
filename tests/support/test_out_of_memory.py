"""Lack of memory is told from other errors."""

import pytest
from helpers.memory_errors import ERRORS

from lsd_sampler.support.out_of_memory import is_out_of_memory


@pytest.mark.parametrize("kind", ERRORS)
def test_lack_of_memory_is_known_by_every_name(kind: str) -> None:
    assert is_out_of_memory(ERRORS[kind]())


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), OSError(28, "full"), ValueError("out of memory")])
def test_other_errors_are_not_lack_of_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)
