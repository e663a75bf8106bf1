"""Corruption processes. A new one is its own file and one line here."""

from typing import Any

from ...support.registry import Registry
from ...support.validation import check_number
from .absorbing import Absorbing
from .base import Corruption
from .gaussian import Gaussian
from .uniform import Uniform


CORRUPTIONS: Registry[type[Corruption]] = Registry("corruption")
for _kind in (Absorbing, Uniform, Gaussian):
    CORRUPTIONS.register(_kind.name, _kind)


def check_states(config: Any) -> None:
    """Raises `ValueError` unless a scheduler's config gives the states of a token, and its constants, as numbers."""
    check_number("mask_token_id", config.mask_token_id, integer=True, optional=True, low=0)
    check_number("vocab_size", config.vocab_size, integer=True, optional=True, low=1)
    check_number("rate_sigma", config.rate_sigma)
    check_number("q_sigma", config.q_sigma)


def make_corruption(config: Any) -> Corruption:
    """Builds the corruption process that a scheduler's config names, with its constants from the config.

    Raises:
        ValueError: for an unknown name, or a constant that is missing or out of range.
    """
    name, mask_token_id, vocab_size = config.corruption, config.mask_token_id, config.vocab_size
    kind = CORRUPTIONS[name]
    if kind is Absorbing:
        if mask_token_id is None:
            raise ValueError("`mask_token_id` is not set: build the scheduler with `LSDScheduler(mask_token_id=...)`.")
        return Absorbing(mask_token_id, max(vocab_size or 0, mask_token_id) + 1)
    if vocab_size is None or mask_token_id is not None:
        raise ValueError(
            f"`corruption` {name!r} needs `vocab_size`, and has no `mask_token_id`; got {vocab_size} and"
            f" {mask_token_id}."
        )
    return Uniform(vocab_size) if kind is Uniform else Gaussian(vocab_size, config.rate_sigma, config.q_sigma)


__all__ = ["CORRUPTIONS", "Absorbing", "Corruption", "Gaussian", "Uniform", "check_states", "make_corruption"]
