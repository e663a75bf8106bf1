"""`lsd-sample`: draw samples from a masked diffusion model, with a learned sampler or the plain one."""

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ..sampling.draws import row_generators
from ..support.atomic import write_atomically
from ..support.workers import Workers
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
from .infill_files import of_equal_length, read_canvases


Sample = dict[str, Any]
"""A sample's text and ids."""

NUM_SAMPLES = 4
NOT_OF_TRAINING = 1
"""Keeps the noise of samples apart from that of the sequences that a sampler learned from with the same seed."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lsd-sample", description=__doc__, formatter_class=HelpWithDefaults)
    add_model_arguments(parser)
    parser.add_argument("--sampler", help="folder or Hub id of a learned sampler; default: the plain base solver")
    parser.add_argument("--nfe", type=positive_int, default=8, help="network calls")
    parser.add_argument(
        "--num-samples", type=positive_int, help="number of samples; default: 4, or 1 for each line of --infill"
    )
    parser.add_argument("--batch-size", type=positive_int, default=64, help="samples per network call")
    parser.add_argument("--prefix", help="text that every sample begins with")
    parser.add_argument("--suffix", help="text that every sample ends with")
    parser.add_argument(
        "--infill", type=Path, metavar="FILE",
        help="fill in the masks of each line of this file: texts with mask tokens, ids, or .jsonl",
    )  # fmt: skip
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="temperature of the token draws; 0 takes the most likely token"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise")
    parser.add_argument("--output", type=Path, help="also write the samples here, one JSON object a line")
    return parser


def command(args: argparse.Namespace) -> None:
    check_options(args)
    with process_group(args):
        draw(args)


def check_options(args: argparse.Namespace) -> None:
    """Refuses flags that do not go together.

    Raises:
        ValueError: if there are any; the message names the flag.
    """
    for name in ("prefix", "suffix", "length") if args.infill else ():
        if getattr(args, name) is not None:
            raise ValueError(f"`--infill` has whole canvases: leave `--{name}` out.")


def draw(args: argparse.Namespace) -> None:
    """Prints the samples, and writes them. Several processes draw a share each."""
    if args.output:
        if args.output.is_dir():
            raise IsADirectoryError(f"`--output` {str(args.output)!r} is a folder: give the name of a file.")
        check_output_dir(args.output.parent, "--output")
    pipeline, workers = load_pipeline(args), Workers.here()
    if args.sampler:
        pipeline.scheduler = load_sampler(args.sampler)
    make = in_canvases if args.infill else of_one_canvas
    samples: dict[int, Sample] = {}
    printed = 0
    for batch in make(args, pipeline, workers):
        samples |= batch
        # before the file: these are kept if it cannot be written
        ready = [samples[i]["text"] for i in itertools.takewhile(samples.__contains__, itertools.count(printed))]
        is_read = say("\n" * (printed > 0) + "\n\n".join(ready)) if ready else True
        printed += len(ready)
        if not workers.broadcast(is_read or args.output is not None):
            return
    if args.output and workers.is_main:
        lines = [json.dumps(samples[i]) for i in range(len(samples))]
        write_atomically(args.output, ("\n".join(lines) + "\n").encode())


def of_one_canvas(args: argparse.Namespace, pipeline: Any, workers: Workers) -> Iterator[dict[int, Sample]]:
    """Samples by number, as they are drawn."""
    canvas = {"prefix": args.prefix, "suffix": args.suffix, "length": args.length}
    size, total = workers.size * args.batch_size, args.num_samples or NUM_SAMPLES
    for first in range(0, total, size):
        batch = range(first, min(first + size, total))
        yield shared(workers, batch, lambda here: call(args, pipeline, here, num_samples=len(here), **canvas))


def in_canvases(args: argparse.Namespace, pipeline: Any, workers: Workers) -> Iterator[dict[int, Sample]]:
    """Samples for each canvas of a file, by its place there. Canvases of one length are filled in together."""
    canvases = read_canvases(args.infill, pipeline)
    rows = [i for i in range(len(canvases)) for _ in range(args.num_samples or 1)]

    def fill(here: Sequence[int]) -> list[Sample]:
        return call(args, pipeline, here, input_ids=torch.stack([canvases[rows[i]] for i in here]), num_samples=1)

    for batch in of_equal_length(rows, canvases, workers.size * args.batch_size):
        yield shared(workers, batch, fill)


def shared(workers: Workers, batch: Sequence[int], make: Callable[[Sequence[int]], list[Sample]]) -> dict[int, Sample]:
    """The samples of a batch by number. Each process draws a share of them."""
    here = batch[workers.rank * len(batch) // workers.size : (workers.rank + 1) * len(batch) // workers.size]
    shares = workers.gather(make(here) if here else [])
    return dict(zip(batch, itertools.chain(*shares), strict=True))


def call(args: argparse.Namespace, pipeline: Any, samples: Sequence[int], **canvas: Any) -> list[Sample]:
    """These samples. Each has noise of its own, so it makes no difference which are drawn together."""
    with within_memory(args, "--batch-size", len(samples)):
        output: Any = pipeline(
            **canvas,
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
