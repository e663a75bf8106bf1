"""Corruption processes. A new one is its own file and one line here."""

from ...support.registry import Registry
from .absorbing import Absorbing
from .base import Corruption
from .gaussian import Gaussian
from .uniform import Uniform


CORRUPTIONS: Registry[type[Corruption]] = Registry("corruption")
for _kind in (Absorbing, Uniform, Gaussian):
    CORRUPTIONS.register(_kind.name, _kind)


def make_corruption(
    name: str, *, mask_token_id: int | None, vocab_size: int | None, rate_sigma: float, q_sigma: float
) -> Corruption:
    """Builds the corruption process of that name; it takes the constants that it has.

    Raises:
        ValueError: for an unknown name, or a constant that is missing or out of range.
    """
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
    return Uniform(vocab_size) if kind is Uniform else Gaussian(vocab_size, rate_sigma, q_sigma)


__all__ = ["CORRUPTIONS", "Absorbing", "Corruption", "Gaussian", "Uniform", "make_corruption"]
