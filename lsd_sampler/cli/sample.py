"""`lsd-sample`: draw samples from a masked diffusion model, with a learned sampler or the plain one."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..sampling.draws import row_generators
from ..support.atomic import write_atomically
from .canvases import of_equal_length, read_canvases
from .common import (
    HelpWithDefaults,
    add_model_arguments,
    check_output_dir,
    load_pipeline,
    load_sampler,
    positive_int,
    run,
    within_memory,
)


NUM_SAMPLES = 4
NOT_OF_TRAINING = 1
"""With one seed, samples have other noise than the teacher's sequences that a sampler learned from."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lsd-sample", description=__doc__, formatter_class=HelpWithDefaults)
    add_model_arguments(parser)
    parser.add_argument("--sampler", help="folder or Hub id of a learned sampler; default: the plain base solver")
    parser.add_argument("--nfe", type=positive_int, default=8, help="network calls")
    parser.add_argument("--num-samples", type=positive_int, help="how many; default: 4, or 1 of each line of --infill")
    parser.add_argument("--batch-size", type=positive_int, default=64, help="samples per network call")
    parser.add_argument("--prefix", help="text that every sample begins with")
    parser.add_argument("--suffix", help="text that every sample ends with")
    parser.add_argument(
        "--infill", type=Path, metavar="FILE",
        help="fill in the masks of each line: texts with mask tokens, ids, or .jsonl with one of them",
    )  # fmt: skip
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="of the token draws; 0 takes the most likely token"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument("--output", type=Path, help="also write the samples here, one JSON object a line")
    return parser


def command(args: argparse.Namespace) -> None:
    check_options(args)
    if args.output:
        if args.output.is_dir():
            raise IsADirectoryError(f"`--output` {str(args.output)!r} is a folder: give the name of a file.")
        check_output_dir(args.output.parent, "--output")
    pipeline = load_pipeline(args)
    if args.sampler:
        pipeline.scheduler = load_sampler(args.sampler)
    lines = infill(args, pipeline) if args.infill else draw(args, pipeline)
    if args.output:
        write_atomically(args.output, ("\n".join(lines) + "\n").encode())


def check_options(args: argparse.Namespace) -> None:
    """Refuses what does not go together.

    Raises:
        ValueError: that names the flag.
    """
    for name in ("prefix", "suffix", "length") if args.infill else ():
        if getattr(args, name) is not None:
            raise ValueError(f"`--infill` has whole canvases: leave `--{name}` out.")


def draw(args: argparse.Namespace, pipeline: Any) -> list[str]:
    """Samples of one canvas, printed batch by batch; what is written of each."""
    lines: list[str] = []
    num_samples = args.num_samples or NUM_SAMPLES
    for first in range(0, num_samples, args.batch_size):
        samples = range(first, min(first + args.batch_size, num_samples))
        made = call(args, pipeline, samples, prefix=args.prefix, suffix=args.suffix, length=args.length)
        # before the file: these are kept if it cannot be written
        print("\n" * (first > 0) + "\n\n".join(text for text, _ in made), flush=True)
        lines += [in_json(*sample) for sample in made]
    return lines


def infill(args: argparse.Namespace, pipeline: Any) -> list[str]:
    """Samples of each canvas of a file, printed in its order; what is written of each."""
    canvases = read_canvases(args.infill, pipeline)
    rows = [i for i in range(len(canvases)) for _ in range(args.num_samples or 1)]
    done: dict[int, tuple[str, list[int]]] = {}
    printed = 0
    for batch in of_equal_length(rows, canvases, args.batch_size):
        ids = torch.stack([canvases[rows[i]] for i in batch])
        done |= zip(batch, call(args, pipeline, batch, input_ids=ids), strict=True)
        while printed in done:
            print("\n" * (printed > 0) + done[printed][0], flush=True)
            printed += 1
    return [in_json(*done[i]) for i in range(len(rows))]


def call(
    args: argparse.Namespace, pipeline: Any, samples: Sequence[int], **canvas: Any
) -> list[tuple[str, list[int]]]:
    """Text and ids of these samples, each with noise of its own."""
    number = 1 if "input_ids" in canvas else len(samples)
    with within_memory(args, "--batch-size", len(samples)):
        output: Any = pipeline(
            **canvas,
            num_samples=number,
            num_inference_steps=args.nfe,
            temperature=args.temperature,
            generator=row_generators(args.seed, samples, NOT_OF_TRAINING),
        )
    sequences = output.sequences.tolist()
    texts = output.texts or [" ".join(map(str, ids)) for ids in sequences]
    return list(zip(texts, sequences, strict=True))


def in_json(text: str, ids: list[int]) -> str:
    return json.dumps({"text": text, "ids": ids})


def main(argv: list[str] | None = None) -> int:
    return run(command, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
