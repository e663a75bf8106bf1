"""Where tasks come from: a file, sudokus that are made here, or a data set of reasoning-gym (an extra)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .sudoku import BOXES, random_puzzles
from .tasks import Checker, Task, make_checker, read_tasks
from .validation import did_you_mean


GYM = "reasoning-gym"
FORM = f"FILE.jsonl, sudoku:clues=30 or {GYM}:NAME"
_RIGHT = 1 - 1e-9  # a score of reasoning-gym is from 0 to 1, and 1 is right


@dataclass(frozen=True)
class TaskSet:
    """Items and their checker.

    Attributes:
        items: the items.
        checker: says whether an output is right.
    """

    items: list[Task]
    checker: Checker

    def halves(self) -> tuple["TaskSet", "TaskSet"]:
        """Every other item, and those between: one half to choose on, one to judge on.

        Raises:
            ValueError: if there is only one item.
        """
        if len(self.items) < 2:
            raise ValueError("One half of the items chooses and the other judges: give at least 2 items.")
        return replace(self, items=self.items[::2]), replace(self, items=self.items[1::2])


def load_tasks(
    name: str,
    num: int | None = None,
    *,
    seed: int = 0,
    checker: str | None = None,
    oracle: Any = None,
    argument: str = "--tasks",
    checker_argument: str = "--checker",
) -> TaskSet:
    """The tasks of a name: a JSONL file, `sudoku:clues=30,size=9`, or `reasoning-gym:mini_sudoku,min_empty=8`.

    A `sudoku` is a random complete grid of which `clues` random cells are given. It may have several solutions, and
    any that keeps the clues is right. Options of a data set of reasoning-gym are those of its configuration.

    Args:
        name (`str`): a file or a source.
        num (`int`, *optional*): how many items; default: all of a file, 1024 of a source. A file may hold fewer.
        seed (`int`): of sources that make their items. reasoning-gym makes item i from `seed + i`.
        checker (`str`, *optional*): see [`make_checker`]; default: `exact` for a file, else the source's own.
        oracle (`Oracle`, *optional*): the law behind the checker `valid`.
        argument, checker_argument (`str`): what messages call `name` and `checker`.

    Raises:
        OSError: if there is no such file.
        ImportError: without reasoning-gym, where it is asked for.
        ValueError: if there are no such tasks; the message names the argument.
    """
    source, _, options = name.partition(":")
    make = _SOURCES.get(source)
    own = None if checker is None else make_checker(checker, oracle=oracle, argument=checker_argument)
    if make is None and not Path(name).expanduser().exists():
        hint = did_you_mean(source, _SOURCES)
        raise ValueError(f"`{argument}` {name!r} is neither a file nor a source of tasks: give {FORM}.{hint}")
    if make is None:
        return TaskSet(read_tasks(name, argument)[:num], own or make_checker())
    try:
        made = make(options, 1024 if num is None else num, seed)
    except ValueError as error:
        raise ValueError(f"`{argument}` {name!r}: {error}") from error
    return made if own is None else replace(made, checker=own)


def _sudokus(options: str, num: int, seed: int) -> TaskSet:
    given = _numbers(options, {"clues": 30, "size": 9})
    size, clues = given["size"], given["clues"]
    if size not in BOXES or not 0 <= clues < size * size:
        raise ValueError(f"`size` must be one of {list(BOXES)}, and `clues` fewer than its square.")
    grids, are_given = random_puzzles(num, size, clues, torch.Generator().manual_seed(seed))
    puzzles = torch.where(are_given, grids, -1).tolist()
    pairs = zip(puzzles, grids.tolist(), strict=True)
    return TaskSet([{"canvas": puzzle, "solution": grid} for puzzle, grid in pairs], make_checker("sudoku"))


def _from_gym(options: str, num: int, seed: int) -> TaskSet:
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise ImportError(f"Tasks of {GYM} need it: `pip install lsd_sampler[tasks]`.") from error
    name, _, rest = options.partition(",")
    if name not in DATASETS:
        known = f"{len(DATASETS)} data sets, such as mini_sudoku"
        raise ValueError(f"{GYM} has no data set {name!r}, but {known}.{did_you_mean(name, DATASETS)}")
    fields = vars(DATASETS[name][1]).get("__dataclass_fields__", {})
    given = _numbers(rest, {key: None for key in fields if key not in ("seed", "size")})
    try:
        data = reasoning_gym.create_dataset(name, size=num, seed=seed, **given)
        entries = [data[i] for i in range(num)]
    except (AssertionError, TypeError, ValueError) as error:  # how it refuses options
        raise ValueError(f"{GYM} cannot make it: {error}.") from error

    def is_right(output: Any, item: Task) -> bool:
        """Whether the data set's own scorer gives the output, without white space at its ends, all points."""
        return float(data.score_answer(output.strip(), item["entry"])) >= _RIGHT

    return TaskSet([{"prompt": e["question"], "answer": e["answer"], "entry": e} for e in entries], is_right)


_SOURCES: dict[str, Callable[[str, int, int], TaskSet]] = {"sudoku": _sudokus, GYM: _from_gym}


def _numbers(text: str, known: dict[str, Any]) -> dict[str, Any]:
    """The defaults and the pairs KEY=VALUE; keys without a default are left out where they are not given."""
    given = {key: value for key, value in known.items() if value is not None}
    for pair in filter(None, text.split(",")):
        key, _, value = pair.partition("=")
        if key not in known:
            raise ValueError(f"{key!r} is none of its options: {', '.join(known)}.{did_you_mean(key, known)}")
        try:
            given[key] = int(value)
        except ValueError:
            raise ValueError(f"`{key}` must be a whole number, got {value!r}.") from None
    return given
