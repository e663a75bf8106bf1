"""Keys of the authors' configs: read by their full names, and named where their values cannot be used."""

from collections.abc import Callable
from typing import Any

import pytest

from lsd_sampler.denoisers.config_keys import (
    MDLM_NOISES,
    look_up,
    read_choice,
    read_dropout,
    read_flag,
    read_noise,
    read_size,
    read_sizes,
)


CONFIG: dict[str, Any] = {"model": {"width": 12, "heads": 3, "dropout": 0, "tied": False, "kind": "a"}, "none": None}


def test_values_are_found_under_their_full_names() -> None:
    assert (read_size(CONFIG, "model.width"), read_dropout(CONFIG, "model.dropout")) == (12, 0)
    assert read_flag(CONFIG, "model.tied") is False and read_choice(CONFIG, "model.kind", "ab") == "a"
    keys = {"hidden_size": "model.width", "n_heads": "model.heads"}
    assert read_sizes(CONFIG, keys) == {"hidden_size": 12, "n_heads": 3}
    for absent in ("model.depth", "model.width.more", "none.width", "other"):
        assert look_up(CONFIG, absent) is None


@pytest.mark.parametrize(
    ("read", "values"),
    [
        (read_size, [None, 0, -1, 2.0, "2", True]),
        (read_dropout, [None, -0.1, 1, "0", True]),
        (read_flag, [None, 0, "false"]),
        (lambda config, key: read_choice(config, key, ("a", "b")), [None, "c", ["a"]]),
    ],
)
def test_values_that_cannot_be_used_are_named(read: Callable[[Any, str], Any], values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=r"'a\.b'"):
            read({"a": {"b": value}}, "a.b")


def test_heads_divide_the_hidden_size_into_even_widths() -> None:
    keys = {"hidden_size": "d", "n_heads": "h"}
    for heads in (4, 5):  # of 12: widths of 3, and none
        with pytest.raises(ValueError, match="'d'.*twice 'h'"):
            read_sizes({"d": 12, "h": heads}, keys)


def test_noise_needs_its_constants_only_where_it_has_them() -> None:
    for kind in MDLM_NOISES:
        config = {"noise": {"type": kind}}
        if kind in ("geometric", "linear"):
            with pytest.raises(ValueError, match=r"'noise\.sigma_min'"):
                read_noise(config, "noise", MDLM_NOISES)
        else:
            read_noise(config, "noise", MDLM_NOISES)
