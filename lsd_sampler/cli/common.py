"""What the three commands share. argparse, because flags such as `--nfe 4 8 16` take several values."""

import argparse
import sys
from collections.abc import Callable

import torch


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """`--model` and where and how it is loaded."""
    parser.add_argument("--model", required=True, help="short name (countdown, radd, ...), local folder, or Hub id")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub model")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="default: as stored")
    parser.add_argument("--length", type=int, help="tokens per sequence; default: the model's")


def load_pipeline(args: argparse.Namespace):  # noqa: ANN201  (imported late)
    """The pipeline around `--model`."""
    from ..denoisers import load_denoiser
    from ..pipeline_masked_diffusion import MaskedDiffusionPipeline
    from ..scheduling_lsd import LSDScheduler

    dtype = getattr(torch, args.dtype) if args.dtype else None
    denoiser = load_denoiser(args.model, revision=args.revision, device=args.device, dtype=dtype)
    return MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config()), denoiser.tokenizer)


def positive_int(text: str) -> int:
    """An argparse type."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def run(command: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser, argv: list[str] | None) -> int:
    """Parses, runs, and turns known mistakes into one sentence on stderr and exit code 1."""
    args = parser.parse_args(argv)
    try:
        command(args)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except torch.OutOfMemoryError:
        print("Error: out of memory: try half the --batch-size.", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0
