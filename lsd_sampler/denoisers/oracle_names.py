"""Names of exact oracles: `NAME`, `NAME:KEY=VALUE,...` or `NAME:FILE,KEY=VALUE,...`, the same for all."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..support.registry import Registry
from ..support.validation import did_you_mean
from .chains import chain_of_text, hidden_chain, second_order_chain
from .constraints import brackets, colouring, hamming, linear_code, replace_one, shuffle, sudoku4
from .markov import countdown, random_chain, read_chain
from .oracle import Oracle
from .table import read_table


@dataclass(frozen=True)
class OracleName:
    """The oracle that a name stands for.

    Attributes:
        example: the name as documentation shows it.
        make: makes the oracle from options.
        defaults: key -> value of the numbers that a user may give.
        read: makes the oracle from a file and options; None where it has no files.
        read_defaults: the same as `defaults`, for `read`.
        suffixes: the endings of its files' names; empty: any.
    """

    example: str
    make: Callable[..., Oracle] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    read: Callable[..., Oracle] | None = None
    read_defaults: Mapping[str, Any] = field(default_factory=dict)
    suffixes: tuple[str, ...] = ()

    def oracle(self, file: str, given: Mapping[str, Any]) -> Oracle:
        if file and self.read is not None:
            return self.read(file, **{**self.read_defaults, **given})
        if self.make is None:
            raise ValueError("A file is missing.")
        return self.make(**{**self.defaults, **given})

    def reads(self, file: str) -> bool:
        return self.read is not None and (not self.suffixes or file.endswith(self.suffixes))


ORACLES: Registry[OracleName] = Registry("oracle")
ORACLES.register(
    "countdown",
    OracleName("countdown:V=32,L=256", lambda V, L: countdown(_states(V), L), {"V": 32, "L": 256}),
)
ORACLES.register(
    "markov",
    OracleName(
        "markov:V=3,L=3,seed=0 or markov:FILE.json",
        lambda V, L, seed: random_chain(_states(V), L, seed), {"V": 32, "L": 256, "seed": 0},
        lambda file, L: read_chain(file, L), {"L": None}, (".json", ".safetensors"),
    ),
)  # fmt: skip
ORACLES.register(
    "markov2",
    OracleName(
        "markov2:V=8,L=64,K=3,seed=0",
        lambda V, L, K, seed: second_order_chain(V, L, num_successors=K, seed=seed),
        {"V": 8, "L": 64, "K": 0, "seed": 0},
    ),
)  # fmt: skip
ORACLES.register(
    "hmm",
    OracleName(
        "hmm:V=27,L=128,K=5,eps=0.001,seed=0, hmm:S=8,V=16,L=64,K=3 or hmm:FILE.txt,L=128",
        lambda V, L, S, K, eps, seed: hidden_chain(
            _states(V), L, num_states=S, num_successors=K, eps=eps, seed=seed
        ),
        {"V": 27, "L": 128, "S": 0, "K": 0, "eps": 0.0, "seed": 0},
        lambda file, L, K, eps: chain_of_text(file, L, num_successors=K, eps=eps),
        {"L": 128, "K": 0, "eps": 0.0}, (".txt", ".txt.xz"),
    ),
)  # fmt: skip
ORACLES.register("table", OracleName("table:FILE", read=read_table))
ORACLES.register("sudoku4", OracleName("sudoku4:clues=4", sudoku4))
ORACLES.register(
    "colouring",
    OracleName("colouring:H=4,W=4,V=3", lambda H, W, V: colouring(H, W, V), {"H": 4, "W": 4, "V": 3}),
)
ORACLES.register("hamming", OracleName("hamming", hamming))
ORACLES.register(
    "linear_code",
    OracleName(
        "linear_code:L=12,K=6,seed=0", lambda L, K, seed: linear_code(L, K, seed), {"L": 12, "K": 6, "seed": 0}
    ),
)
ORACLES.register(
    "brackets",
    OracleName(
        "brackets:L=24,depth=3,kinds=2", lambda L, depth, kinds: brackets(L, depth, kinds),
        {"L": 24, "depth": 3, "kinds": 2},
    ),
)  # fmt: skip
ORACLES.register("shuffle", OracleName("shuffle:L=4", lambda L: shuffle(L), {"L": 4}))
ORACLES.register("replace_one", OracleName("replace_one:L=4", lambda L: replace_one(L), {"L": 4}))


def is_oracle_spec(name: str) -> bool:
    """Whether `name` asks for an exact oracle: one of `ORACLES`, perhaps with a colon and options."""
    return name.partition(":")[0] in ORACLES.names()


def make_oracle(spec: str) -> Any:
    """Builds the oracle that a name describes: `countdown`, `sudoku4:clues=4`, `markov:FILE.json,L=64`, ...

    Every oracle has the option `clues`: the number of random positions of a sequence that the commands give.

    Raises:
        OSError: if the file is missing.
        ValueError: if the text cannot be understood, or an option is out of range.
    """
    name, _, rest = spec.partition(":")
    kind = ORACLES[name]
    file, options = _parts(rest)
    if (file and not kind.reads(file)) or (not file and kind.make is None) or len(dict(options)) < len(options):
        raise ValueError(f"Cannot understand {spec!r}; the form is {kind.example}.")
    defaults = {**(kind.read_defaults if file else kind.defaults), "clues": 0}
    given = {key: _number(spec, kind, key, text, defaults) for key, text in options}
    clues = given.pop("clues", 0)
    oracle = kind.oracle(file, given)
    if not clues < oracle.length:
        raise ValueError(f"`clues` must be in [0, {oracle.length - 1}] in {spec!r}.")
    oracle.clues = clues
    return oracle


def _parts(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The file, or nothing, and the pairs KEY=VALUE behind it."""
    options = []
    while match := re.fullmatch(r"(?:(.*),)?([A-Za-z]+)=([-+.\w]*)", text):
        text = match[1] or ""
        options.append((match[2], match[3]))
    return text, options[::-1]


def _number(spec: str, kind: OracleName, key: str, text: str, defaults: Mapping[str, Any]) -> Any:
    if key not in defaults:
        form = f"the form is {kind.example}.{did_you_mean(key, defaults)}"
        raise ValueError(f"Cannot understand {spec!r}: {key!r} is none of {', '.join(defaults)}; {form}")
    number_type = float if isinstance(defaults[key], float) else int
    try:
        number = number_type(text)
    except ValueError:
        number = -1
    if not 0 <= number < 2**31:
        raise ValueError(
            f"Cannot understand {spec!r}: `{key}` must be a number of at least 0; the form is {kind.example}."
        )
    return number


def _states(V: int) -> int:
    if V < 2:
        raise ValueError(f"`V` must be at least 2, got {V}.")
    return V
