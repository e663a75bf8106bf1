"""`lsd-sample`: draw samples from a masked diffusion model, with a learned sampler or the plain one."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..atomic import write_atomically
from ..random import row_generators
from ..training.workers import Workers
from .common import (
    HelpWithDefaults,
    add_model_arguments,
    check_output_dir,
    load_pipeline,
    load_sampler,
    positive_int,
    process_group,
    run,
    say,
    within_memory,
)


NOT_OF_TRAINING = 1
"""With one seed, samples have other noise than the teacher's sequences that a sampler learned from."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lsd-sample", description=__doc__, formatter_class=HelpWithDefaults)
    add_model_arguments(parser)
    parser.add_argument("--sampler", help="folder or Hub id of a learned sampler; default: the plain base solver")
    parser.add_argument("--nfe", type=positive_int, default=8, help="network calls")
    parser.add_argument("--num-samples", type=positive_int, default=4, help="how many")
    parser.add_argument("--batch-size", type=positive_int, default=64, help="samples per network call")
    parser.add_argument("--prefix", help="text that every sample begins with")
    parser.add_argument("--suffix", help="text that every sample ends with")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="of the token draws; 0 takes the most likely token"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument("--output", type=Path, help="also write the samples here, one JSON object a line")
    return parser


def command(args: argparse.Namespace) -> None:
    with process_group(args):
        draw(args)


def draw(args: argparse.Namespace) -> None:
    """Prints the samples, and writes them; several processes draw a share each."""
    if args.output:
        if args.output.is_dir():
            raise IsADirectoryError(f"`--output` {str(args.output)!r} is a folder: give the name of a file.")
        check_output_dir(args.output.parent, "--output")
    pipeline, workers = load_pipeline(args), Workers.here()
    if args.sampler:
        pipeline.scheduler = load_sampler(args.sampler)
    lines: list[str] = []
    for first in range(0, args.num_samples, workers.size * args.batch_size):
        num = min(workers.size * args.batch_size, args.num_samples - first)
        here = range(first, first + num)[workers.rank * num // workers.size : (workers.rank + 1) * num // workers.size]
        samples = [sample for share in workers.gather(draw_batch(args, pipeline, here)) for sample in share]
        # before the file: these are kept if it cannot be written
        is_read = say("\n" * (first > 0) + "\n\n".join(sample["text"] for sample in samples))
        lines += map(json.dumps, samples)
        if not workers.broadcast(is_read or args.output is not None):
            return
    if args.output and workers.is_main:
        write_atomically(args.output, ("\n".join(lines) + "\n").encode())


def draw_batch(args: argparse.Namespace, pipeline: Any, samples: range) -> list[dict[str, Any]]:
    """Samples by number, each with noise of its own: which are drawn together makes no difference."""
    if not samples:
        return []
    with within_memory(args, "--batch-size", len(samples)):
        output: Any = pipeline(
            prefix=args.prefix,
            suffix=args.suffix,
            length=args.length,
            num_samples=len(samples),
            num_inference_steps=args.nfe,
            temperature=args.temperature,
            generator=row_generators(args.seed, samples, NOT_OF_TRAINING),
        )
    sequences = output.sequences.tolist()
    texts = output.texts or [" ".join(map(str, ids)) for ids in sequences]
    return [{"text": text, "ids": ids} for text, ids in zip(texts, sequences, strict=True)]


def main(argv: list[str] | None = None) -> int:
    return run(command, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
