"""Options: frozen dataclasses, each field of which is also a flag of `lsd-train`, with its help and its choices."""

from collections.abc import Callable, Iterable
from dataclasses import Field, dataclass, field, fields
from typing import Any

from ..support.validation import check_choice


Choices = Iterable[str] | Callable[[], Iterable[str]]


def option(
    default: Any,
    help: str,
    type: type | None = None,
    *,
    choices: Choices = (),
    metavar: str | None = None,
    unset: Any = None,
    own: bool = False,
) -> Any:
    """A field of a dataclass of options.

    Args:
        default: its value if none is given; None for "to be decided".
        help (`str`): what `--help` says.
        type (`type`, *optional*): of its value, if the default does not show it.
        choices (*optional*): the values that it may have besides None, or a function that lists them.
        metavar (`str`, *optional*): what `--help` calls its value.
        unset (*optional*): the value that None stands for in this method; it may differ in other methods.
        own (`bool`, defaults to `False`): whether the option is refused, and not just ignored, with a method that does
            not have it.
    """
    metadata = {"help": help, "type": type, "choices": choices, "metavar": metavar, "unset": unset, "own": own}
    return field(default=default, metadata=metadata)


def choices_of(each: Field) -> list[str]:
    """The values that an option may have, or none where it has no list of them."""
    choices: Choices = each.metadata.get("choices") or ()
    return list(choices() if callable(choices) else choices)


def check_choices(options: Any) -> None:
    """Raises `ValueError`, naming the option, unless each that has choices is one of them."""
    for each in fields(options):
        if choices := choices_of(each):
            unset = [None] if each.default is None else []
            check_choice(each.name, getattr(options, each.name), [*unset, *choices])


def check_positive(name: str, value: Any) -> None:
    """Raises `ValueError`, naming the option, unless the value is an integer above 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, got {value!r}.")


@dataclass(frozen=True)
class MethodOptions:
    """The options that one training method has besides those that all have.

    A subclass declares them as fields, by [`option`], and checks them in its `__post_init__`. If two methods have an
    option of the same name, it is one flag, with one default.
    """

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) is None:
                object.__setattr__(self, each.name, each.metadata.get("unset"))
        check_choices(self)
