"""Parts that the three commands share. They use argparse because flags such as `--nfe 4 8 16` take several values."""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from ..denoisers.oracle_names import is_oracle_spec
from ..support.out_of_memory import is_out_of_memory


class HelpWithDefaults(argparse.HelpFormatter):
    """Adds the default of every option that has one and does not say it itself."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if default is None or default is False or default is argparse.SUPPRESS or "default" in text:
            return text
        words = " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
        return f"{text} (default: {words.replace('%', '%%')})"


def add_model_arguments(parser: argparse.ArgumentParser, with_pipeline: bool = False):  # noqa: ANN201
    """Adds `--model` (or a whole pipeline) and options of its loading; returns the group of flags that exclude it."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", help="short name (countdown, radd, ...), local folder, or Hub id")
    if with_pipeline:
        which.add_argument("--pipeline", help="any diffusers pipeline of a masked model: local folder or Hub id")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    device_here = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=device, default=device_here, help="torch device: cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], help="precision of the weights; default: as stored"
    )
    parser.add_argument("--length", type=positive_int, help="tokens per sequence; default: the model's")
    parser.add_argument(
        "--mask-token-id", type=token_id, metavar="ID", help="id of the mask, if the model does not say"
    )
    parser.add_argument("--trust-remote-code", action="store_true", help="allow code of the model's own repo to run")
    parser.add_argument(
        "--model-kwargs", type=json_object, metavar="JSON", help="further options of `load_denoiser`, such as shifted"
    )
    return which


def load_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of `load_denoiser` beside name, revision, device and precision.

    Raises:
        ValueError: for options of an exact oracle, which has none, or of a `--pipeline`.
    """
    options = dict(args.model_kwargs or {})
    if args.mask_token_id is not None:
        options["mask_token_id"] = args.mask_token_id
    if options and (not args.model or is_oracle_spec(args.model)):
        flag = "--model-kwargs" if args.model_kwargs else "--mask-token-id"
        raise ValueError(
            f"`{flag}` is of the files of a `--model`: {args.model or args.pipeline!r} has no such option."
        )
    taken = sorted({"revision", "device", "dtype", "trust_remote_code"} & options.keys())
    if taken:
        raise ValueError(f"`--model-kwargs`: `{taken[0]}` has a flag of its own.")
    return options | ({"trust_remote_code": True} if args.trust_remote_code else {})


def load_pipeline(args: argparse.Namespace, with_tokenizer: bool = True):  # noqa: ANN201  (imported late)
    """The pipeline around `--model`. Its tokenizer is fetched if need be."""
    from ..denoisers import load_denoiser
    from ..pipeline_masked_diffusion import MaskedDiffusionPipeline
    from ..scheduling_lsd import LSDScheduler

    dtype = getattr(torch, args.dtype) if args.dtype else None
    options = load_options(args)
    with in_flags():
        denoiser = load_denoiser(args.model, revision=args.revision, device=args.device, dtype=dtype, **options)
    tokenizer = denoiser.tokenizer if with_tokenizer else None
    return MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config()), tokenizer)


@contextmanager
def in_flags() -> Iterator[None]:
    """Where a message advises an option of `load_denoiser`, adds the flag that gives it to a command."""
    from ..denoisers.auto import load_options_known

    try:
        yield
    except TypeError as error:
        if "unknown option" not in str(error):
            raise
        raise ValueError(f"`--model-kwargs` or `--mask-token-id`: {error}") from error
    except (ValueError, OSError) as error:
        advised = re.findall(r"(?:[Pp]ass|with|and) `(\w+)[`=]|`(\w+)` is needed", str(error))
        names = [name for pair in advised for name in pair if name in load_options_known()]
        if not names:
            raise
        flags = [_FLAGS.get(name, f"--model-kwargs '{{\"{name}\": ...}}'") for name in dict.fromkeys(names)]
        message = f"{error} (Here: {', '.join(f'`{flag}`' for flag in flags)}.)"
        raise (ValueError if isinstance(error, ValueError) else OSError)(message) from error


_FLAGS = {"mask_token_id": "--mask-token-id", "trust_remote_code": "--trust-remote-code"}


def load_diffusers_pipeline(args: argparse.Namespace):  # noqa: ANN201  (imported late)
    """The pipeline of `--pipeline`, as diffusers loads it. If it is on the Hub, `--revision` becomes the commit.

    Raises:
        ValueError: if it is a model.
        OSError: if it cannot be found or fetched; the message says so if the name is no folder.
    """
    from diffusers import DiffusionPipeline

    from ..denoisers.files import CONFIG_NAME, PIPELINE_NAME, commit_of
    from ..denoisers.tokenizer_files import check_tokenizer_files
    from ..support.hub import fetching

    args.pipeline = os.path.expanduser(args.pipeline)
    local = Path(args.pipeline)
    if (local / CONFIG_NAME).exists() and not (local / PIPELINE_NAME).exists():
        raise ValueError(f"`--pipeline` {args.pipeline!r} is a model, not a pipeline: use `--model`.")
    folder = local
    if not local.is_dir():
        with fetching(args.pipeline, args.revision):
            folder = DiffusionPipeline.download(
                args.pipeline, revision=args.revision, trust_remote_code=args.trust_remote_code
            )
        args.revision = commit_of(Path(folder)) or args.revision
    for part in Path(folder).glob("*tokenizer*"):
        check_tokenizer_files(part)
    dtype = {"torch_dtype": getattr(torch, args.dtype)} if args.dtype else {}
    pipeline = DiffusionPipeline.from_pretrained(
        args.pipeline, revision=args.revision, trust_remote_code=args.trust_remote_code, **dtype
    )
    return pipeline.to(args.device)


@contextmanager
def process_group(args: argparse.Namespace) -> Iterator[None]:
    """Joins the other processes of `accelerate launch`, if there are any. Each has a device of its own.

    Only the first prints inside: the others' outputs, notes and bars would be the same.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) < 2:
        yield
        return
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise ValueError("Several processes need accelerate: `pip install lsd_sampler[train]`.") from error
    state = PartialState(cpu=args.device.type == "cpu")
    if args.device.type == "cuda" and args.device.index is None:
        args.device = state.device
    try:
        with nullcontext() if state.is_main_process else _silence():
            yield
    finally:
        state.destroy_process_group()


@contextmanager
def _silence() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def json_object(text: str) -> dict:
    """An argparse type."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON object, such as '{{\"gen_length\": 64}}', got {text!r}")
    return value


def positive_int(text: str) -> int:
    """An argparse type."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def token_id(text: str) -> int:
    """An argparse type."""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a token id, such as 103, got {text!r}")
    return int(text)


def device(text: str) -> torch.device:
    """An argparse type."""
    try:
        parsed = torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"must be a device of torch, such as cpu or cuda:0, got {text!r}") from None
    if parsed.type == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError(f"this machine (or this torch) has no CUDA device, got {text!r}")
    return parsed


def load_sampler(name: str):  # noqa: ANN201  (imported late)
    """A learned sampler from a folder or the Hub."""
    from ..scheduling_lsd import LSDScheduler
    from ..support.hub import is_hub_id

    if not os.path.isdir(os.path.expanduser(name)) and not is_hub_id(name):
        raise FileNotFoundError(f"`--sampler` {name!r} is neither a folder nor a Hub id (owner/name).")
    try:
        return LSDScheduler.from_pretrained(name)
    except OSError as error:  # diffusers' messages go on for several lines
        raise OSError(f"`--sampler` {name!r}: {str(error).splitlines()[0]}") from error


def check_output_dir(folder: Path, flag: str = "--output-dir") -> None:
    """Refuses, before any work is done, a folder that could not be written to afterwards."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise NotADirectoryError(f"`{flag}` {str(folder)!r}: {str(existing)!r} is a file.")
    if not os.access(existing, os.W_OK):
        raise PermissionError(f"`{flag}` {str(folder)!r}: no permission to write to {str(existing)!r}.")


@contextmanager
def within_memory(args: argparse.Namespace, flag: str, number: int) -> Iterator[None]:
    """Turns lack of memory into a sentence that says what to try.

    Args:
        args: the arguments, with `dtype`.
        flag (`str`), number (`int`): the flag that decides the size of a batch, and its value.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise OSError(smaller_batch(flag, number, args.dtype)) from error


def smaller_batch(flag: str, number: int, dtype: str | None) -> str:
    """Advice for the case that memory ran out with this number of sequences."""
    if number > 1:
        return f"out of memory with `{flag} {number}`: try `{flag} {number // 2}`."
    dtype_advice = "" if dtype in ("bfloat16", "float16") else "`--dtype bfloat16` or "
    return f"out of memory: the model does not fit. Try {dtype_advice}another `--device`."


def settle_paths(args: argparse.Namespace) -> None:
    """Puts the home folder in place of `~` in all paths, because a shell does not after `=`: `--output-dir=~/x`.

    Raises:
        ValueError: if a text or path is not in UTF-8: neither card nor samples could be written.
    """
    for name, value in vars(args).items():
        for part in value if isinstance(value, list) else [value]:
            _check_encoding("--" + name.replace("_", "-"), part)
        if isinstance(value, Path):
            setattr(args, name, Path(os.path.expanduser(value)))
        elif isinstance(value, list):
            setattr(args, name, [Path(os.path.expanduser(v)) if isinstance(v, Path) else v for v in value])


def _check_encoding(flag: str, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        remedy = "rename the file or folder" if isinstance(value, Path) else "give it in UTF-8"
        raise ValueError(f"`{flag}` {text!r} holds bytes that are not UTF-8: {remedy}.") from error


def say(*words: str) -> bool:
    """Prints a result at once. If the reader has gone, as `head` does, that is no error, and nothing more is printed.

    Returns:
        whether anybody still reads.
    """
    try:
        if words:
            encoding = sys.stdout.encoding or "utf-8"
            print(*(text.encode(encoding, "backslashreplace").decode(encoding) for text in words))
        sys.stdout.flush()
    except BrokenPipeError:
        # what is still in the buffer would be an error again when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def run(command: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser, argv: list[str] | None) -> int:
    """Parses, runs, and turns known mistakes into one sentence on stderr and exit code 1."""
    try:
        args = parser.parse_args(argv)
    finally:
        say()  # the help
    try:
        settle_paths(args)
        command(args)
    except KeyboardInterrupt as error:
        print(f"Interrupted{'; ' if error.args else ''}{error}.", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        # what remains of lack of memory came before there was a batch
        if is_out_of_memory(error):
            print(f"Error: {smaller_batch('', 1, args.dtype)}", file=sys.stderr)
        elif isinstance(error, (ValueError, OSError)):
            print(f"Error: {error}", file=sys.stderr)
        else:
            raise
        return 1
    return 0
