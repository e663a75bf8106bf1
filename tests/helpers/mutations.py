"""Damaged and hostile variants of a sampler's two files: all that can be listed are listed, hypothesis draws the rest.

JSON values are given as text, so that there may be some that no Python value stands for.
"""

import json
import struct
from collections.abc import Iterator
from itertools import chain

import torch
from hypothesis import strategies as st
from safetensors.torch import load, save


Pairs = list[tuple[str, str]]
"""Keys and values (JSON text) of an object, in order, perhaps with duplicates."""

NUMBERS = (
    "0", "1", "-1", "2", "5", "0.5", "-0.0", "1.0", "1e-320", "1e308", "1e999", "-1e999", "NaN", "Infinity",
    "-Infinity", str(2**31), str(2**53 + 1), str(2**63 - 1), str(2**63), str(2**64), "1" + "0" * 400, "9" * 5000,
)  # fmt: skip
TEXTS = (
    '""', '" "', '"text"', '"1"', '"random"', '"\\u0000"', '"\\ud800"', '"\u00fc"', '"../../etc/passwd"',
    '"/etc/passwd"', '"file:///etc/passwd"', '"lsd_sampler.pickle"', '"__class__"', f'"{"x" * 60_000}"',
)  # fmt: skip
CONTAINERS = (
    "[]", "[1]", "[[]]", "[null, NaN]", "{}", '{"a": 1}', '{"a": 1, "a": {}}', "[" * 90 + "]" * 90,
    '{"a": ' * 500 + "1" + "}" * 500, "[" * 900 + "]" * 900, "[" * 30_000 + "]" * 30_000,
)  # fmt: skip
VALUES = ("null", "true", "false", *NUMBERS, *TEXTS, *CONTAINERS)
KEYS = (
    "", " ", "self", "cls", "args", "kwargs", "config", "dtype", "torch_dtype", "quantization_config", "auto_map",
    "subfolder", "return_unused_kwargs", "pretrained_model_name_or_path", "_use_default_values", "_class_name",
    "_diffusers_version", "_ignore_files", "_pre_quantization_dtype", "_internal_dict", "_FrozenDict__frozen",
    "__class__", "__dict__", "__init__", "__setattr__", "__metadata__", "items", "keys", "get", "pop", "update",
    "timesteps", "learned_sampler", "../../etc/passwd", "/etc/passwd", "a\0b", "\ud800", "nfe_2.timesteps",
    "nfe_3.timesteps", "nfe_-2.timesteps", "nfe_2.timesteps\n", "nfe_\u0662.timesteps",
    "nfe_" + "9" * 5000 + ".timesteps", "step_error.table", "step_error.grid", "x" * 100_000,
)  # fmt: skip
CLASSES = (
    "AmusedScheduler", "DDPMScheduler", "DPMSolverSDEScheduler", "FlaxDDPMScheduler", "KarrasDiffusionSchedulers",
    "UNet2DModel", "DiffusionPipeline", "ConfigMixin", "schedulers", "utils", "__version__", "decoy.DecoyScheduler",
)  # fmt: skip
BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F128": 128, "f64": 64, "float64": 64, "object": 64,
}  # fmt: skip
"""The types of safetensors, and some that are none."""
SHAPES = (
    "[0]", "[1]", "[2]", "[3]", "[1, 3]", "[3, 1]", "[-1]", "[-3]", "[2.0]", "[1.5]", '["3"]', "[null]", "[[3]]",
    "[0, 9]", f"[{2**31}]", f"[{2**62}]", f"[{2**63}]", f"[{2**64}]", f"[{2**32}, {2**32}]", f"[{2**40}, 0]", "[1e3]",
    "[1e999]", "[NaN]", f"[3{', 1' * 70}]", f"[3{', 1' * 100_000}]",
)  # fmt: skip
OFFSETS = (
    "[0, 0]", "[0, 8]", "[8, 0]", "[8, 16]", "[-8, 16]", "[0]", "[0, 8, 16]", "[0.0, 8.0]", '["0", "8"]', "[1, 17]",
    f"[0, {2**31}]", f"[{2**63}, {2**63 + 16}]", f"[{2**64 - 8}, {2**64 - 1}]", f"[0, {2**64}]", "[1e999, 0]",
)  # fmt: skip
FLOATS = (
    torch.nan,
    torch.inf,
    -torch.inf,
    1e308,
    1e39,
    2.0,
    1.0,
    0.7,
    5e-324,
    1e-40,
    0.0,
    -0.0,
    -5e-324,
    -1.0,
    -1e308,
)
INTEGERS = (-(2**63), -1, 0, 1, 2, 4, 5, 2**31, 2**63 - 1)


def to_text(pairs: Pairs) -> bytes:
    return b"{" + b", ".join(b"%s: %s" % (json.dumps(k).encode(), v.encode()) for k, v in pairs) + b"}"


def to_pairs(text: bytes) -> Pairs:
    return [(key, json.dumps(value)) for key, value in json.loads(text).items()]


def variants(pairs: Pairs, index: int, values: tuple[str, ...]) -> Iterator[Pairs]:
    """One entry dropped, renamed, written twice, or with other values."""
    before, (key, value), after = pairs[:index], pairs[index], pairs[index + 1 :]
    yield before + after
    for name in (key.upper(), key + " ", key + "\0", "_" + key, f"__{key}__", key[:-1], *dict(pairs)):
        yield [*before, (name, value), *after]
    for other in values:
        yield [*before, (key, other), *after]
    for other in values[:8]:
        yield [(key, other), *pairs]
        yield [*pairs, (key, other)]


# ---- the config ----


def configs(config: bytes) -> Iterator[bytes]:
    pairs = to_pairs(config)
    for index in range(len(pairs)):
        yield from map(to_text, variants(pairs, index, VALUES))
    for key in KEYS:
        yield from (to_text([*pairs, (key, value)]) for value in ("null", "1", '"random"', '["order"]', '{"a": []}'))
    yield from (to_text([*pairs, ("_class_name", json.dumps(name))]) for name in CLASSES)
    yield from (to_text([*pairs, ("_use_default_values", json.dumps([key]))]) for key, _ in pairs)
    yield from (value.encode() for value in VALUES)
    yield from (b"", b"\n", b"\0" * 1000, b"\xef\xbb\xbf" + config, b"// comment\n" + config, config + config)
    yield from (config.decode().encode(encoding) for encoding in ("utf-16", "utf-16-le", "utf-32"))
    yield to_text([(f"key{i}", "1") for i in range(100_000)])
    yield to_text([*pairs, ("base_model", json.dumps("x" * 10_000_000))])
    # the same in other words
    yield from (to_text(pairs), to_text(pairs[::-1]), config.replace(b" ", b"\t\r\n"), config + b" " * 1000)


# ---- the tensors ----


def split(file: bytes) -> tuple[Pairs, bytes]:
    """Header and body of a safetensors file."""
    size = struct.unpack("<Q", file[:8])[0]
    return to_pairs(file[8 : 8 + size]), file[8 + size :]


def join(header: bytes, body: bytes, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if size is None else size) + header + body


def headers(file: bytes) -> Iterator[bytes]:
    """The tensors stay as they are, the header does not."""
    pairs, body = split(file)
    few = ("null", "true", "3", "-1", "NaN", *TEXTS[:-1], *CONTAINERS)
    for index, (key, value) in enumerate(pairs):
        yield from (join(to_text(changed), body) for changed in variants(pairs, index, few))
        for inner in _inner(to_pairs(value.encode()), key == "__metadata__"):
            changed = [*pairs[:index], (key, to_text(inner).decode()), *pairs[index + 1 :]]
            yield join(to_text(changed), body)
    header = to_text(pairs)
    sizes = (0, 1, len(header) - 1, len(header) + 1, len(header) + len(body), 2**20 + 1, 2**31, 2**63, 2**64 - 1)
    yield from (join(header, body, size) for size in sizes)
    yield from (join(value.encode(), body) for value in VALUES)
    yield from (join(to_text([*pairs, (key, pairs[-1][1])]), body) for key in KEYS)
    yield from (join(header + b" " * size, body) for size in (1, 7, 2**20, 2**21))
    yield from (
        join(header, extra) for extra in (b"", body[:-1], body + b"\0", body * 2, body[::-1], bytes(len(body)))
    )


def _inner(entry: Pairs, is_metadata: bool) -> Iterator[Pairs]:
    """Variants of one tensor's description, or of the metadata."""
    if is_metadata:
        others = {key: ('""', '"0"', '"2"', '"halton"', "1", "null", "[]", '"\\ud800"', '"1.0"') for key, _ in entry}
    else:
        dtypes = (*(f'"{name}"' for name in BITS), "null", "1", "[]")
        others = {"dtype": dtypes, "shape": (*SHAPES, "null", "3", '"3"', "{}"), "data_offsets": OFFSETS}
        content = dict(entry)
        start, end = json.loads(content["data_offsets"])
        for name, bits in BITS.items():  # the same bytes, read as another type
            shape = f"[{(end - start) * 8 // bits}]"
            yield list({**content, "dtype": f'"{name}"', "shape": shape}.items())
    for index, (key, value) in enumerate(entry):
        yield entry[:index] + entry[index + 1 :]
        yield [*entry, (key, value)]
        yield [*entry, ("colour", value)]
        yield from ([*entry[:index], (key, other), *entry[index + 1 :]] for other in others[key])


def numbers(file: bytes) -> Iterator[bytes]:
    """Whole files, as safetensors writes them, with other numbers, types, shapes and names in them."""
    tensors = load(file)
    for name, tensor in tensors.items():
        others = chain(_other_numbers(tensor), _other_types(tensor), _other_shapes(tensor))
        yield from (save({**tensors, name: other}) for other in others)
        rest = {key: value for key, value in tensors.items() if key != name}
        yield save(rest)
        yield from (save({**rest, key: tensor}) for key in KEYS if key not in ("\ud800", "__metadata__"))
    yield save({})


def _other_numbers(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    for index in range(tensor.numel()):
        for value in FLOATS if tensor.is_floating_point() else INTEGERS:
            other = tensor.clone()
            other.view(-1)[index] = value
            yield other
    yield from (torch.full_like(tensor, value) for value in (1e308, 5e-324, 0.0) if tensor.is_floating_point())


def _other_types(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    names = "bool uint8 int8 int16 int32 int64 float8_e5m2 float8_e4m3fn float16 bfloat16 float32 float64 complex64"
    yield from (tensor.to(getattr(torch, name)) for name in names.split())


def _other_shapes(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    flat = tensor.flatten()
    yield from (flat, flat[None], flat[:, None], flat[:0], flat[:-1], flat[0], flat.repeat(2), flat.flip(0))


# ---- drawn ----

Accident = tuple[str, int, int, int, bytes]
Change = tuple[int, str | None, str | None]

_PLACE = st.integers(0, 9999)
accidents = st.tuples(
    st.sampled_from(["flip", "insert", "overwrite", "truncate", "delete", "repeat", "blank", "swap"]),
    *(_PLACE, _PLACE, _PLACE),
    st.binary(min_size=1, max_size=16),
)
"""Of transport: bytes changed, inserted, lost, repeated or moved."""

_texts = st.text(max_size=9)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
).map(json.dumps)
changes = st.lists(st.tuples(_PLACE, st.none() | _texts, st.none() | _json), min_size=1, max_size=3)
"""Other keys, other values, or both."""


def damage(data: bytes, accident: Accident) -> bytes:
    kind, *places, chunk = accident
    a, b, c = sorted(place % (len(data) + 1) for place in places)
    match kind:
        case "flip":
            return data[:a] + bytes(byte ^ (chunk[0] or 1) for byte in data[a : a + 1]) + data[a + 1 :]
        case "insert":
            return data[:a] + chunk + data[a:]
        case "overwrite":
            return data[:a] + chunk + data[a + len(chunk) :]
        case "truncate":
            return data[:a]
        case "delete":
            return data[:a] + data[b:]
        case "repeat":
            return data[:b] + data[a:]
        case "blank":
            return data[:a] + bytes(b - a) + data[b:]
        case _:
            return data[:a] + data[b:c] + data[a:b] + data[c:]


def change(text: bytes, changes: list[Change]) -> bytes:
    """An object with one to three entries changed."""
    pairs = to_pairs(text)
    for place, new_key, new_value in changes:
        key, value = pairs[place % len(pairs)]
        pairs[place % len(pairs)] = (key if new_key is None else new_key, value if new_value is None else new_value)
    return to_text(pairs)
