"""`lsd-eval --tasks`: samplers compared by the share of right answers."""

import argparse
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..denoisers.task_canvases import answer_canvases, task_canvases
from ..evaluation.harness import Harness
from ..evaluation.metric_sets import TaskMetrics
from ..support.task_sources import FORM, TaskSet, load_tasks
from ..support.tasks import CHECKERS, OWN_CHECKER, VALID
from .evaluation_classes import classes_of
from .prompt_flags import add_block_arguments, block_options, used_flags


TASK_TEMPERATURES = (0.0, 1.0)
CHOOSING = "choosing.jsonl"
"""Rows of the half of the items that temperatures are chosen on."""
SEPARATOR = "/"
"""Between the values of a constant that is swept: `entropy_bounded@gamma=0.1/1`."""
_NOT_FOR_TASKS = ("infill", "judge", "reference", "features", "mauve", "frontier", "images", "molecules")
_ITEMS_SEED = 3_000_000  # of tasks that are made: far from the seeds of what is judged


@dataclass(frozen=True)
class TaskPart:
    """Items, their canvases, and what measures the answers.

    Attributes:
        canvases: one for each item.
        metrics: the metric set.
    """

    canvases: list[torch.Tensor]
    metrics: TaskMetrics


@dataclass(frozen=True)
class TaskParts:
    """What is judged, and what temperatures are chosen on: other items, or None where nothing is chosen."""

    judged: TaskPart
    choosing: TaskPart | None


def add_task_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of tasks."""
    names = ", ".join([*CHECKERS.names(), VALID])
    parser.add_argument("--tasks", metavar="NAME", help=f"compare by right answers to these tasks: {FORM}")
    parser.add_argument(
        "--checker",
        metavar="NAME",
        help=f"with --tasks: what is right: {names}, or {OWN_CHECKER} of your own; default: exact, or the source's",
    )
    add_block_arguments(parser)


def check_task_options(args: argparse.Namespace) -> None:
    """Refuses flags that do not go with tasks.

    Raises:
        ValueError: if there are any; the message names the flag.
    """
    swept = [text for text in args.baselines if is_swept(text)]
    if args.tasks is None:
        if args.checker is not None:
            raise ValueError("`--checker` says which answers are right: give `--tasks` too.")
        if used := used_flags(args):
            raise ValueError(f"`{used[0]}` is about answers to prompts: give `--tasks` too, or leave it out.")
        if swept and args.frontier:
            raise ValueError(
                f"`--frontier` goes along temperatures, and `--baselines` {swept[0]!r} along a constant: give that one"
                " value."
            )
        _check_base(args)
        return
    for name in _NOT_FOR_TASKS:
        if getattr(args, name):
            raise ValueError(f"`--{name}` does not go with `--tasks`, which compares right answers. Leave it out.")
    _check_base(args)
    if args.length and (used := used_flags(args)):
        raise ValueError(f"`{used[0]}`: an answer has `--max-new-tokens`: leave `--length` out.")
    if args.oracle is not None and args.checker != VALID:
        raise ValueError(
            f"`--oracle` with `--tasks` is the law behind `--checker {VALID}`: give that, or leave it out."
        )


def _check_base(args: argparse.Namespace) -> None:
    if args.baselines and is_swept(args.baselines[0]):
        raise ValueError(
            f"`--baselines`: the first is the base, with a constant of one value, got {args.baselines[0]!r}."
        )


def is_swept(text: str) -> bool:
    """Whether a baseline has a constant with several values."""
    return SEPARATOR in text.partition("@")[2]


def expand_sweeps(baselines: Sequence[str]) -> dict[str, list[str]]:
    """Each baseline, and the baselines of one value each that it stands for.

    Raises:
        ValueError: if a sweep has an empty or a repeated value.
    """
    return {text: _expanded(text) if is_swept(text) else [text] for text in baselines}


def _expanded(text: str) -> list[str]:
    solver, _, rest = text.partition("@")
    options, colon, order = rest.partition(":")
    choices = []
    for option in options.split(","):
        name, equals, values = option.partition("=")
        found = values.split(SEPARATOR)
        if not all(found) or len(set(found)) < len(found):
            raise ValueError(f"`--baselines` {text!r}: {name!r} has an empty or a repeated value.")
        choices.append([f"{name}{equals}{value}" for value in found])
    return [f"{solver}@{','.join(chosen)}{colon}{order}" for chosen in itertools.product(*choices)]


def make_task_parts(args: argparse.Namespace, pipeline: Any, oracle: Any, chooses: bool) -> TaskParts:
    """The items to judge on, and those to choose temperatures on where several are tried.

    Raises:
        ValueError: if there are no such tasks, or the model cannot fill in an item.
        OSError: if a file is missing.
    """
    from_file = (args.num_samples or 1024) * (2 if chooses else 1)
    options = {"seed": args.seed + _ITEMS_SEED, "checker": args.checker, "oracle": oracle}
    try:
        tasks = load_tasks(args.tasks, from_file, **options)
    except ImportError as error:
        raise ValueError(str(error)) from error
    if used_flags(args):  # of all items together, so that all answers are of one length
        canvas = answer_canvases(tasks.items, pipeline, args.max_new_tokens, args.use_chat_template)[0]
        args.max_new_tokens = int((canvas == pipeline.denoiser.hole_id).sum())
    judged, choosing = (tasks, None) if not chooses else tasks.halves()[::-1]
    parts = [None if part is None else _part(args, pipeline, part) for part in (judged, choosing)]
    assert parts[0] is not None
    return TaskParts(parts[0], parts[1])


def _part(args: argparse.Namespace, pipeline: Any, tasks: TaskSet) -> TaskPart:
    if used_flags(args):
        canvases = answer_canvases(tasks.items, pipeline, args.max_new_tokens, args.use_chat_template)
    else:
        canvases = task_canvases(tasks.items, pipeline, args.length)
    name = f"{args.checker or args.tasks} {args.oracle or ''}".strip()
    options = {"tokenizer": pipeline.tokenizer, "checker_name": name}
    metrics = TaskMetrics(tasks.items, tasks.checker, canvases, pipeline.denoiser.hole_id, **options)
    return TaskPart(canvases, metrics)


def chooser(
    args: argparse.Namespace, pipeline: Any, samplers: Mapping[str, Any], tasks: TaskParts | None, options: Any
) -> Harness | None:
    """What chooses temperatures and guidance on the other half of the items; its rows have a file of their own."""
    if tasks is None or tasks.choosing is None:
        return None
    part, output = tasks.choosing, args.output_dir / CHOOSING
    options = {**options, "canvases": part.canvases, **classes_of(pipeline.denoiser, part.canvases)}
    options |= answer_options(args, pipeline, tasks)
    return Harness(pipeline, samplers, part.metrics, output=output, **options)


def answer_options(args: argparse.Namespace, pipeline: Any, tasks: TaskParts | None) -> dict[str, Any]:
    """The pipeline's options of answers; none where items are canvases."""
    if tasks is None or not used_flags(args):
        return {}
    return {**block_options(args, pipeline.denoiser), "max_new_tokens": args.max_new_tokens}


def described_blocks(args: argparse.Namespace) -> dict[str, str]:
    """How answers were generated, as name -> sentence."""
    if not used_flags(args):
        return {}
    blocks = f"blocks of {args.block_length} tokens" if args.block_length else "one block"
    stop = ", no calls behind the end of an answer" if args.eos_early_stop else ""
    chat = "; prompts through the chat template" if args.use_chat_template else ""
    return {"Answers": f"{blocks}, each in the calls of its row; cache: {args.cache}{stop}{chat}"}


def described_tasks(args: argparse.Namespace) -> str:
    """The tasks, and which answers are right."""
    law = f", of {args.oracle}" if args.oracle else ""
    return f"{args.tasks}; right by {args.checker or 'the checker of the source, or equal to the answer'}{law}"
