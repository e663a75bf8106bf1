"""Flags of prompts, and of the blocks that answers are generated in."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..denoisers.block_prediction import CACHES
from .common import positive_int, token_id
from .texts import read_lines


_FORM = '"TEXT", {"prompt": "TEXT"} or {"messages": [{"role": "user", "content": "TEXT"}]}'
_NEXT_TO_BLOCKS = ("prefix", "suffix", "length", "infill", "given")
"""Flags of other canvases."""


def add_prompt_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that say what is to be answered."""
    parser.add_argument(
        "--prompt", action="append", metavar="TEXT", help="a text to go on from; may be given several times"
    )
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE", help=f"prompts, one a line; in .jsonl each line is {_FORM}"
    )


def add_block_arguments(parser: argparse.ArgumentParser, stops: bool = True) -> None:
    """The flags of answers; `stops` adds those of their ends."""
    parser.add_argument(
        "--use-chat-template", action="store_true", help="take each prompt for what a user says in a conversation"
    )
    parser.add_argument("--max-new-tokens", type=positive_int, help="tokens of an answer; default: 128, or what fits")
    parser.add_argument(
        "--block-length", type=positive_int,
        help="answer in blocks of this many tokens, each in --nfe calls; default: one block",
    )  # fmt: skip
    parser.add_argument(
        "--cache", choices=CACHES, default="none",
        help="keys and values kept within a block: none, of what precedes it, or of all around it",
    )  # fmt: skip
    if stops:
        parser.add_argument("--eos-early-stop", action="store_true", help="make no calls behind the end of an answer")
        parser.add_argument(
            "--eos-token-id", type=token_id, nargs="+", metavar="ID", help="what ends an answer; default: the model's"
        )


def asks_prompts(args: argparse.Namespace) -> bool:
    """Whether there is a prompt among the flags."""
    return bool(args.prompt or args.prompts)


def used_flags(args: argparse.Namespace) -> list[str]:
    """The flags of answers that were given."""
    names = ("use_chat_template", "max_new_tokens", "block_length", "cache", "eos_early_stop", "eos_token_id")
    return [f"--{name.replace('_', '-')}" for name in names if getattr(args, name, None) not in (None, False, "none")]


def check_prompts(args: argparse.Namespace) -> None:
    """Refuses flags that do not go together, before anything is loaded.

    Raises:
        ValueError: if there are any; the message names the flag.
    """
    flag = "--prompts" if args.prompts else "--prompt"
    if args.prompt and args.prompts:
        raise ValueError("`--prompt` and `--prompts` exclude each other: put all prompts into the file.")
    if not asks_prompts(args):
        if used := used_flags(args):
            raise ValueError(f"`{used[0]}` is about answers: give `--prompt` or `--prompts` too, or leave it out.")
        return
    for name in _NEXT_TO_BLOCKS:
        if getattr(args, name, None) is not None:
            instead = ", and its answer has `--max-new-tokens`" if name == "length" else ""
            raise ValueError(f"`{flag}` says what is given{instead}: leave `--{name}` out.")


def block_options(args: argparse.Namespace, denoiser: Any = None) -> dict[str, Any]:
    """The pipeline's options of answers. A cache that the denoiser cannot keep is left out, with a note on stderr."""
    if args.cache != "none" and denoiser is not None and not getattr(denoiser, "keeps_keys_and_values", False):
        print(f"`--cache`: {type(denoiser).__name__} keeps no keys and values; it runs without.", file=sys.stderr)
        args.cache = "none"
    names = ("max_new_tokens", "block_length", "cache", "eos_early_stop", "eos_token_id")
    values = {name: getattr(args, name, None) for name in names}
    return {name: value for name, value in values.items() if value not in (None, False, "none")}


def prompt_options(args: argparse.Namespace) -> dict[str, list[Any]]:
    """The pipeline's `prompt` or `messages`, each a list with an entry for each prompt.

    Raises:
        OSError: if the file is missing.
        ValueError: if it holds no prompt, or texts and conversations.
    """
    prompts = list(args.prompt) if args.prompt else read_prompts(args.prompts)
    if getattr(args, "use_chat_template", False):
        prompts = [[{"role": "user", "content": p}] if isinstance(p, str) else p for p in prompts]
    kinds = {isinstance(prompt, str) for prompt in prompts}
    if len(kinds) > 1:
        raise ValueError(f"`--prompts` {str(args.prompts)!r} holds texts and conversations: give one kind.")
    return {"prompt" if kinds == {True} else "messages": prompts}


def read_prompts(path: Path) -> list[Any]:
    """One prompt a line: texts, or conversations. Empty lines are left out, and nothing but a newline ends a line.

    Raises:
        ValueError: if there is none, a line of .jsonl is none, or the file is not text.
    """
    lines = read_lines(path, "--prompts")
    if not lines:
        raise ValueError(f"`--prompts` {str(path)!r} holds no prompt: write one a line.")
    if path.suffix != ".jsonl":
        return [line for _, line in lines]
    return [_parsed(path, number, line) for number, line in lines]


def _parsed(path: Path, number: int, line: str) -> Any:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        content = content.get("messages", content.get("prompt"))
    if isinstance(content, str) or _is_conversation(content):
        return content
    raise ValueError(f"`--prompts` {str(path)!r}, line {number}: must be as {_FORM}.")


def _is_conversation(content: Any) -> bool:
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in content)
    )
