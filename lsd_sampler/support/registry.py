"""Registries of named parts: a dict filled at import, lower-case names, duplicates refused."""

from typing import Generic, TypeVar

from .validation import did_you_mean


T = TypeVar("T")


class Registry(Generic[T]):
    """Maps lower-case names to parts of one kind.

    Args:
        argument (`str`): the argument that users choose a part with; error messages name it.
    """

    def __init__(self, argument: str):
        self.argument = argument
        self._parts: dict[str, T] = {}

    def register(self, name: str, part: T) -> None:
        """Adds a part.

        Raises:
            ValueError: if the name is taken or not lower-case.
        """
        if name in self._parts or name != name.lower():
            raise ValueError(f"Cannot register {name!r} for `{self.argument}`: taken, or not lower-case.")
        self._parts[name] = part

    def __getitem__(self, name: str) -> T:
        if not isinstance(name, str) or name not in self._parts:
            hint = did_you_mean(str(name), self._parts)
            raise ValueError(f"`{self.argument}` must be one of {self.names()}, got {name!r}.{hint}")
        return self._parts[name]

    def names(self) -> list[str]:
        """The names, in order of registration."""
        return list(self._parts)

    def parts(self) -> list[T]:
        """The parts, in order of registration."""
        return list(self._parts.values())
