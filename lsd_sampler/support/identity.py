"""Hashes by which arguments, options and networks are recognised in another process."""

import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType
from typing import Any

import torch


class Undescribable(ValueError):
    """Two values of this kind cannot be compared across processes."""


def identity(value: Any) -> str:
    """A hash of the description of a value."""
    return sha256(json.dumps(describe(value), sort_keys=True).encode())


def describe(value: Any, above: tuple[int, ...] = ()) -> Any:
    """A description that JSON can hold. It is the same for the same value in another process, and differs for others.

    Args:
        value: a number, a text, a tensor, a function, a container, or a value that can be pickled. A function's use of
            its module is not seen.
        above (`tuple[int, ...]`): ids of the containers that hold it.

    Raises:
        Undescribable: for anything else; the message names its type.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, bytes):
        return ["bytes", sha256(value)]
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), list(value.shape), sha256(tensor_bytes(value))]
    if isinstance(value, type):
        return [value.__module__, *code_of(value)] if code_of(value) else [value.__module__, value.__qualname__]
    if id(value) in above:
        raise Undescribable(f"a {type(value).__qualname__} that holds itself")
    inner = functools.partial(describe, above=(*above, id(value)))
    if isinstance(value, Mapping):
        return ["mapping", *_sorted([inner(key), inner(held)] for key, held in value.items())]
    if isinstance(value, (list, tuple)):
        return [inner(held) for held in value]
    if inspect.isfunction(value):
        return inner(_made_of(value))
    if isinstance(value, (set, frozenset)):
        return ["set", *_sorted(map(inner, value))]
    if callable(getattr(value, "to_dict", None)):  # configs of transformers
        return [type(value).__qualname__, inner(public(value.to_dict()))]
    return ["object", *code_of(type(value)), inner(_reduced(value))]


def public(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries whose names do not begin with an underscore."""
    return {key: value for key, value in values.items() if not str(key).startswith("_")}


def sha256(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """The numbers of a tensor, bit for bit.

    Raises:
        Undescribable: if they are not in memory.
    """
    if tensor.is_meta:
        raise Undescribable("a tensor that is not in memory")
    return tensor.detach().contiguous().flatten().view(torch.uint8).cpu().numpy().data


def code_of(kind: type) -> list[str]:
    """Names and code of a class and of its bases; libraries' classes by name and version only."""
    return [found for each in kind.__mro__ if not in_library(each) for found in (each.__qualname__, _code(each))]


def in_library(what: Any) -> bool:
    """Whether a class or function belongs to a library, whose name and version say what it does."""
    root = (what.__module__ or "").partition(".")[0]
    return root in ("torch", "transformers", "diffusers") or (root in sys.stdlib_module_names and root != "__main__")


def _reduced(value: Any) -> list[Any]:
    """The parts from which pickle would make a value."""
    if isinstance(value, torch.nn.Module):
        raise Undescribable(f"a {type(value).__qualname__}, which is no part of the network that holds it")
    try:
        reduced = value.__reduce_ex__(2)
    except Exception as error:
        raise Undescribable(f"a {type(value).__qualname__}") from error
    if isinstance(reduced, str):
        return [type(value), getattr(value, "__module__", None), reduced]
    function, arguments, state, *more = reduced if len(reduced) > 2 else (*reduced, None)
    return [function, arguments, state, *(None if items is None else list(items) for items in more[:2])]


def _made_of(function: Any) -> list[Any]:
    """The name and code of a function, and the values that it was made with."""
    name = [function.__module__, function.__qualname__]
    if in_library(function) and not function.__closure__ and "<" not in function.__qualname__:
        return name
    try:
        held = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError as error:
        raise Undescribable(f"the function {function.__qualname__}, which is not whole yet") from error
    return [*name, list(_compiled(function.__code__)), function.__defaults__, function.__kwdefaults__, held]


@functools.lru_cache(maxsize=1024)
def _code(kind: type) -> str:
    """A hash of a class's source, or else (in a notebook) of the compiled code of its functions."""
    try:
        return sha256(inspect.getsource(kind).encode())
    except (OSError, TypeError):
        return identity([list(_compiled(code)) for code in _code_objects(kind)])


def _code_objects(kind: type) -> Iterator[CodeType]:
    for held in vars(kind).values():
        for part in (held.fget, held.fset) if isinstance(held, property) else (getattr(held, "__func__", held),):
            if inspect.isfunction(part):
                yield inspect.unwrap(part).__code__


def _compiled(code: CodeType) -> Iterator[Any]:
    """Compiled code without its file and lines."""
    yield from (code.co_name, code.co_code, code.co_names, code.co_varnames, code.co_freevars)
    for constant in code.co_consts:
        yield list(_compiled(constant)) if isinstance(constant, CodeType) else constant


def _sorted(values: Iterable[Any]) -> list[Any]:
    return sorted(values, key=lambda value: json.dumps(value, sort_keys=True))
