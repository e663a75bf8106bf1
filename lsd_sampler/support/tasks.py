"""Tasks with a right answer: items from a file, and checkers that say whether an output is right.

The trainer (`objective="answers"`) and the evaluation (`lsd-eval --tasks`) use the same items and checkers.
"""

import importlib
import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import torch

from .registry import Registry
from .sudoku import BOXES, is_solved
from .validation import did_you_mean


Task = dict[str, Any]
"""An item: a `"prompt"` or a `"canvas"`, perhaps an `"answer"`, and whatever else its checker reads."""
Output = str | list[int]
"""What is checked: a text, or token ids where the model has no tokenizer or the checker reads ids."""

OWN_CHECKER = "MODULE:FUNCTION"
_FORM = (
    'as {"prompt": "2 + 2 =", "answer": "4"}, {"canvas": "2 + 2 = [MASK]", "answer": "2 + 2 = 4"} or'
    ' {"canvas": [1, null, 3]}'
)
_NUMBER = re.compile(r"(?:(?<![\w)])-)?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)")


class Checker(Protocol):
    """Whether an output is a right answer to an item: `checker(output, item) -> bool`. Any function will do.

    `output` is what the model wrote: the text behind the prompt, or the whole text of a canvas. Without a tokenizer it
    is the list of token ids of the whole sequence. A checker with a true attribute `reads_ids` always gets ids.
    """

    def __call__(self, output: Any, item: Task, /) -> bool: ...


# ---- items ----


def read_tasks(path: str | Path, argument: str = "--tasks") -> list[Task]:
    """The items of a JSONL file, one object a line; empty lines are left out.

    An item has a `"prompt"` (`str`) or a `"canvas"`: a text with `[MASK]`s, or a list of token ids with null, -1 or
    the mask's id where something is to be filled in. It may have an `"answer"`: a text, or the token ids of the whole
    sequence. Everything else is kept for the checker.

    Args:
        path (`str` or `Path`): the file.
        argument (`str`): what messages call it.

    Raises:
        OSError: if there is no such file.
        ValueError: if it holds no item, or a line is none; the message names file, line and key.
    """
    file = Path(os.path.expanduser(path))
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"`{argument}` {str(path)!r} is not a text in UTF-8: {error}.") from error
    items = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            items.append(check_task(json.loads(line)))
        except (ValueError, RecursionError) as error:
            said = f"is not JSON ({error})." if not str(error).startswith("`") else str(error)
            raise ValueError(f"`{argument}` {str(path)!r}, line {number}: {said}") from error
    if not items:
        raise ValueError(f"`{argument}` {str(path)!r} holds no item: write one a line, {_FORM}.")
    return items


def check_task(item: Any) -> Task:
    """The item, if it is one.

    Raises:
        ValueError: if it is not; the message names the key.
    """
    if not isinstance(item, dict):
        raise ValueError(f"`item` must be an object {_FORM}, got {_short(item)}.")
    begins = [key for key in ("prompt", "canvas") if key in item]
    if len(begins) != 1:
        said = "both" if begins else f"neither{did_you_mean(next(iter(item), ''), ('prompt', 'canvas'))}"
        raise ValueError(f"`item` must have either 'prompt' or 'canvas', {_FORM}; it has {said}.")
    if "prompt" in item and not isinstance(item["prompt"], str):
        raise ValueError(f"`prompt` must be a text, got {_short(item['prompt'])}.")
    canvas, answer = item.get("canvas", ""), item.get("answer", "")
    if not isinstance(canvas, str) and not _are_ids(canvas, holes=True):
        raise ValueError(f"`canvas` must be a text or a list of token ids and nulls, got {_short(canvas)}.")
    if not isinstance(answer, str) and not _are_ids(answer):
        raise ValueError(f"`answer` must be a text or a list of token ids, got {_short(answer)}.")
    return item


# ---- checkers ----


def exact(output: Output, item: Task) -> bool:
    """Whether the output is the answer, white space at both ends aside."""
    answer = _answer(output, item)
    return output.strip() == str(answer).strip() if isinstance(output, str) else output == list(answer)


def contains(output: Output, item: Task) -> bool:
    """Whether the answer is somewhere in the output."""
    answer = _answer(output, item)
    if isinstance(output, str):
        return str(answer).strip() in output
    return any(output[i : i + len(answer)] == list(answer) for i in range(len(output) - len(answer) + 1))


def last_number(output: Output, item: Task) -> bool:
    """Whether the last number of the output is that of the answer: `1,000` is `1000.0`."""
    answer = _answer(output, item)
    if not isinstance(output, str) or not isinstance(answer, str):
        raise ValueError("`last_number` reads texts: the model has a tokenizer and the answer is a text.")
    said, right = _last_number(output), _last_number(answer)
    if right is None:
        raise ValueError(f"`answer` holds no number: {answer!r}.")
    return said is not None and math.isclose(said, right, rel_tol=1e-9, abs_tol=1e-12)


def sudoku(output: Output, item: Task) -> bool:
    """Whether token ids are a complete sudoku of 4 x 4, 6 x 6 or 9 x 9 cells, row by row, that keeps the clues of the
    canvas. Any such grid is right, where a puzzle has several.
    """
    size = math.isqrt(len(output))
    if size not in BOXES or size * size != len(output):
        raise ValueError(f"a sudoku has {', '.join(str(n * n) for n in BOXES)} cells, got {len(output)}.")
    cells = [int(cell) for cell in output]
    digits = all(0 <= cell < size for cell in cells)
    return digits and bool(is_solved(torch.tensor([cells]), size)) and keeps_clues(cells, item, holes=(size,))


setattr(sudoku, "reads_ids", True)  # noqa: B010  (a function has no such attribute for type checkers)

CHECKERS: Registry[Checker] = Registry("checker")
CHECKERS.register("exact", exact)
CHECKERS.register("contains", contains)
CHECKERS.register("last_number", last_number)
CHECKERS.register("sudoku", sudoku)
VALID = "valid"
"""The name of a checker that is made from an oracle: see [`ValidChecker`]."""


class ValidChecker:
    """Whether a whole sequence is possible under an exact law and keeps what the canvas gives.

    Args:
        oracle (`Oracle`): has `log_prob(sequences)`, `vocab_size` and `hole_id`.
    """

    reads_ids = True

    def __init__(self, oracle: Any):
        self.oracle = oracle

    def __call__(self, output: Output, item: Task) -> bool:
        ids = [int(i) for i in output]
        if not all(0 <= i < self.oracle.vocab_size for i in ids):
            return False
        possible = float(self.oracle.log_prob(torch.tensor([ids]))[0]) > -math.inf
        return possible and keeps_clues(ids, item, holes=(self.oracle.hole_id,))


def make_checker(name: str | None = None, *, oracle: Any = None, argument: str = "--checker") -> Checker:
    """The checker of a name.

    Args:
        name (`str`, *optional*): a name of `CHECKERS`, `valid` (needs `oracle`), or `MODULE:FUNCTION`, which is
            imported from the current folder or the Python path. Default: `exact`. Nothing is imported unless it is
            named here: no file of tasks and no model can ask for it.
        oracle (`Oracle`, *optional*): the exact law behind `valid`.
        argument (`str`): what messages call `name`.

    Raises:
        ValueError: if there is no such checker; the message names the argument.
    """
    if name is None:
        return exact
    if name == VALID:
        if oracle is None:
            raise ValueError(f"`{argument}` {VALID} needs an exact oracle, such as sudoku4: give one as the law.")
        return ValidChecker(oracle)
    if ":" in name:
        return _imported(name, argument)
    if name not in CHECKERS.names():
        known = [*CHECKERS.names(), VALID]
        hint = did_you_mean(name, known)
        raise ValueError(f"`{argument}` must be one of {known}, or {OWN_CHECKER} of your own, got {name!r}.{hint}")
    return CHECKERS[name]


def keeps_clues(ids: Sequence[int], item: Mapping[str, Any], holes: Sequence[int] = ()) -> bool:
    """Whether a sequence has the tokens that the item's canvas gives as ids. A canvas in words is not compared: a
    sampler never changes what is given.

    Args:
        ids (sequence of `int`): the whole sequence.
        item (`dict`): with or without a canvas.
        holes (sequence of `int`): ids that stand for a mask, besides null and -1.
    """
    canvas = item.get("canvas")
    if canvas is None or isinstance(canvas, str):
        return True
    unknown = (None, -1, *holes)
    return len(canvas) == len(ids) and all(
        given in unknown or given == made for given, made in zip(canvas, ids, strict=True)
    )


# ---- batches ----


def share_right(
    sequences: torch.Tensor, items: Sequence[Task], checker: Checker, tokenizer: Any | None = None
) -> torch.Tensor:
    """Which sequences are right: their mean is the share.

    Args:
        sequences (`torch.LongTensor` of shape `(num_samples, length)`): prompts included; a token of -1 is left out.
        items (sequence of `dict`): one for each sequence.
        checker ([`Checker`]): see [`make_checker`].
        tokenizer (*optional*): decodes the sequences; without it the checker gets ids.

    Returns:
        `torch.BoolTensor` of shape `(num_samples,)`, on the CPU.

    Raises:
        ValueError: if the numbers differ, or the checker fails or returns no truth value; the message names the item.
    """
    if sequences.ndim != 2 or len(sequences) != len(items):
        raise ValueError(f"`sequences` must be {len(items)} rows, one an item, got shape {tuple(sequences.shape)}.")
    outputs = outputs_of(sequences, items, tokenizer, reads_ids=getattr(checker, "reads_ids", False))
    pairs = enumerate(zip(outputs, items, strict=True))
    return torch.tensor([_checked(checker, output, item, i) for i, (output, item) in pairs], dtype=torch.bool)


def outputs_of(
    sequences: torch.Tensor, items: Sequence[Task], tokenizer: Any | None = None, *, reads_ids: bool = False
) -> list[Output]:
    """What a checker gets for each of `sequences`, `(num_samples, length)`.

    With a tokenizer: the text behind the prompt, up to an end of text; or all of a canvas. Special tokens are dropped.
    """
    rows = [[i for i in row if i >= 0] for row in sequences.tolist()]
    if tokenizer is None or reads_ids:
        return list(rows)
    rows = [_behind_prompt(row, item, tokenizer) for row, item in zip(rows, items, strict=True)]
    if hasattr(tokenizer, "decode_batch"):  # of the tokenizers library
        return list(tokenizer.decode_batch(rows, skip_special_tokens=True))
    return list(tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids of a prompt, without special tokens, as a pipeline's `prefix` has them."""
    if hasattr(tokenizer, "encode_batch"):
        return tokenizer.encode(prompt, add_special_tokens=False).ids
    return list(tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"])


def _behind_prompt(row: list[int], item: Task, tokenizer: Any) -> list[int]:
    """The tokens behind those of the prompt, which the tokens of a denoiser's frame may precede."""
    if "prompt" not in item:
        return row
    prompt = prompt_ids(tokenizer, item["prompt"])
    starts = (i for i in range(len(row) - len(prompt) + 1) if row[i : i + len(prompt)] == prompt)
    start = next(starts, None)
    answer = row if start is None else row[start + len(prompt) :]
    end = getattr(tokenizer, "eos_token_id", None)
    return answer[: answer.index(end)] if end in answer else answer


def _checked(checker: Checker, output: Output, item: Task, index: int) -> bool:
    try:
        said = checker(output, item)
    except Exception as error:  # a user's code may raise anything
        raise ValueError(f"`checker` failed on {_named(item, index)}: {type(error).__name__}: {error}") from error
    if type(said).__name__ not in ("bool", "bool_"):  # Python's and NumPy's
        raise ValueError(f"`checker` must return True or False, got {said!r} for {_named(item, index)}.")
    return bool(said)


def _named(item: Task, index: int) -> str:
    return f"item {index} ({_short(item.get('prompt', item.get('canvas')))})"


def _imported(name: str, argument: str) -> Checker:
    module_name, _, function = name.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", name):
        raise ValueError(f"`{argument}` must have the form {OWN_CHECKER}, got {name!r}.")
    with _current_folder_first():
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # of whatever the module does when it is imported
            said = f"{type(error).__name__}: {error}"
            raise ValueError(f"`{argument}` {name!r}: {module_name!r} cannot be imported ({said}).") from error
    checker: Any = getattr(module, function, None)
    if not callable(checker):
        known = [part for part, value in vars(module).items() if callable(value) and not part.startswith("_")]
        raise ValueError(
            f"`{argument}` {name!r}: {module_name!r} has no function {function!r}.{did_you_mean(function, known)}"
        )
    return cast(Checker, checker)


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """As for `python -m`: a command's own folder comes first instead."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _answer(output: Output, item: Task) -> Any:
    if "answer" not in item:
        raise ValueError("it has no 'answer': write one, or give a checker that needs none.")
    answer = item["answer"]
    if isinstance(output, str) is not isinstance(answer, str):
        kinds = ("a text", "token ids") if isinstance(output, str) else ("token ids", "a text")
        raise ValueError(f"the output is {kinds[0]}, but its 'answer' is {kinds[1]}.")
    return answer


def _last_number(text: str) -> float | None:
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _are_ids(value: Any, holes: bool = False) -> bool:
    """Whether a value is a list of token ids, that is not empty; with null or -1 where there are `holes`."""
    least = -1 if holes else 0
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(
            (i is None and holes) or (isinstance(i, int) and not isinstance(i, bool) and least <= i < 2**63)
            for i in value
        )
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
