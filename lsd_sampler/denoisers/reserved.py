"""The names that every denoiser has, and what they may hold. They would hide a layer of the same name."""

import numbers
import os
from collections.abc import Callable
from functools import cached_property
from typing import Any

from torch import nn

from ..sampling.noise import NoiseSchedule


def _is_count(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value > 0  # pyright: ignore


def _is_id(value: Any) -> bool:
    return value is None or (isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= 0)  # pyright: ignore


def _is_shape(value: Any) -> bool:
    return value is None or (isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_count, value)))


def _is_one_of(*names: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in names


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str | os.PathLike)


RESERVED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "mask_token_id": (_is_id, "the id of the mask, or None"),
    "vocab_size": (_is_count, "the number of tokens"),
    "length": (_is_count, "the number of tokens of the longest sequence"),
    "noise": (lambda value: isinstance(value, NoiseSchedule), "a `NoiseSchedule`"),
    "corruption": (
        lambda value: value in ("absorbing", "uniform", "gaussian"),
        "'absorbing', 'uniform' or 'gaussian'",
    ),
    "prediction_type": (lambda value: value in ("logits", "log_score"), "'logits' or 'log_score'"),
    "time_conditioned": (lambda value: isinstance(value, bool), "True or False"),
    "defers_head": (lambda value: isinstance(value, bool), "True or False"),
    "canvas_shape": (_is_shape, "the height and width of an image in tokens, or None"),
    "tokenizer": (lambda value: value is None or hasattr(value, "decode"), "a tokenizer, or None"),
    "name_or_path": (_is_text, "a text, or None"),
    "commit_hash": (_is_text, "a text, or None"),
}
"""Attributes that samplers, pipelines and commands read: what each may hold, as a test and in words."""


def check_attribute(owner: type, name: str, value: Any) -> None:
    """Whether an instance of `owner` may have `value` under this name.

    Raises:
        ValueError: if the name is one that every denoiser has, and the value is not what it stands for.
    """
    is_layer = isinstance(value, nn.Module | nn.Parameter)
    if name in RESERVED:
        fits, what = RESERVED[name]
        if is_layer or not fits(value):
            raise ValueError(f"`{name}` of a denoiser must be {what}, got {_shown(value)}. {_advice()}")
        return
    known = getattr(owner, name, None)
    if isinstance(known, property) and known.fset is None:
        raise ValueError(f"`{name}` of a denoiser follows from its other attributes and cannot be set. {_advice()}")
    if is_layer and hasattr(owner, name):
        raise ValueError(f"`{name}` is a name that {owner.__name__} has in its class. {_advice()}")


def check_class(owner: type) -> None:
    """The same check for the names that a class itself defines; properties are not looked into.

    Raises:
        ValueError: as [`check_attribute`].
    """
    for name, value in vars(owner).items():
        if name in RESERVED and not isinstance(value, property | cached_property):
            check_attribute(owner, name, value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 and "\n" not in text else f"an object of class {type(value).__name__}"


def _advice() -> str:
    return f"Call yours something else: denoisers have {', '.join(RESERVED)}, and the methods of their base class."
