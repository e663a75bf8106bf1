"""`lsd-sample`: draw samples from a masked diffusion model, with a learned sampler or the plain one."""

import argparse
import itertools
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..sampling.draws import row_generators
from ..support.identity import identity
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
from .infill_files import read_canvases
from .prompt_flags import (
    add_block_arguments,
    add_prompt_arguments,
    asks_prompts,
    block_options,
    check_prompts,
    prompt_options,
)
from .sample_file import SampleFile


Sample = dict[str, Any]
"""A sample's text and ids."""

NUM_SAMPLES = 4
NOT_OF_TRAINING = 1
"""Keeps the noise of samples apart from that of the sequences that a sampler learned from with the same seed."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lsd-sample", description=__doc__, formatter_class=HelpWithDefaults)
    add_model_arguments(parser)
    parser.add_argument("--sampler", help="folder or Hub id of a learned sampler; default: the plain base solver")
    parser.add_argument("--nfe", type=positive_int, default=8, help="network calls; after a prompt, for each block")
    parser.add_argument(
        "--num-samples", type=positive_int,
        help="number of samples; default: 4, or 1 for each prompt and each line of --infill",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=positive_int, default=64, help="samples per network call")
    parser.add_argument("--prefix", help="text that every sample begins with")
    parser.add_argument("--suffix", help="text that every sample ends with")
    parser.add_argument(
        "--infill", type=Path, metavar="FILE",
        help="fill in the masks of each line of this file: texts with mask tokens, ids, or .jsonl",
    )  # fmt: skip
    add_prompt_arguments(parser)
    add_block_arguments(parser)
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="temperature of the token draws; 0 takes the most likely token"
    )
    parser.add_argument(
        "--guidance-scale", type=float, metavar="W", help="strength of classifier-free guidance; default: none"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise")
    parser.add_argument("--output", type=Path, help="also write the samples here, one JSON object a line")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with a run that was stopped, with --output")
    again.add_argument("--overwrite", action="store_true", help="start over where --output has an unfinished run")
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
    check_prompts(args)
    for name in ("resume", "overwrite"):
        if getattr(args, name) and args.output is None:
            raise ValueError(f"`--{name}` is about what is kept beside `--output`: give that too, or leave it out.")


def draw(args: argparse.Namespace) -> None:
    """Prints the samples, and writes them. Several processes draw a share each."""
    if args.output:
        args.output = args.output.expanduser()
        if args.output.is_dir():
            raise IsADirectoryError(f"`--output` {str(args.output)!r} is a folder: give the name of a file.")
        check_output_dir(args.output.parent, "--output")
    prompts = prompt_options(args) if asks_prompts(args) else None
    pipeline, workers = load_pipeline(args), Workers.here()
    if args.sampler:
        pipeline.scheduler = load_sampler(args.sampler)
    if prompts is not None:
        plan = after_prompts(args, pipeline, prompts)
    else:
        plan = in_canvases(args, pipeline) if args.infill else of_one_canvas(args, pipeline)
    file, samples = kept_samples(args, pipeline, plan, workers)
    printed = 0
    for batch in itertools.chain([None], plan.batches(workers.size * args.batch_size, samples)):
        if batch is not None:
            made = shared(workers, batch, plan.make)
            if file is not None:
                file.add(made)
            samples |= made
        # before the output: these are kept if it cannot be written
        ready = [samples[i]["text"] for i in itertools.takewhile(samples.__contains__, itertools.count(printed))]
        is_read = say("\n" * (printed > 0) + "\n\n".join(ready)) if ready else True
        printed += len(ready)
        if not workers.broadcast(is_read or args.output is not None):
            return
    if file is not None:
        file.finish(samples)


def kept_samples(
    args: argparse.Namespace, pipeline: Any, plan: "SamplePlan", workers: Workers
) -> tuple[SampleFile | None, dict[int, Sample]]:
    """The file of the main process, and what an earlier run left, which all processes know."""
    if args.output is None:
        return None, {}
    file, error = None, None
    if workers.is_main:
        try:
            how = {"resume": args.resume, "overwrite": args.overwrite}
            file = SampleFile(args.output, identity_of(args, pipeline, plan), **how)
        except (ValueError, OSError) as raised:
            error = raised
    error = workers.broadcast(error)
    if error is not None:
        raise error
    return file, workers.broadcast({} if file is None else dict(file.samples))


def identity_of(args: argparse.Namespace, pipeline: Any, plan: "SamplePlan") -> str:
    """What decides the samples. How they are batched, and where, does not."""
    names = (
        "model", "revision", "dtype", "mask_token_id", "model_kwargs", "sampler", "nfe", "temperature", "seed",
        "guidance_scale",
    )  # fmt: skip
    flags = {name: str(getattr(args, name)) for name in names}
    config = {key: value for key, value in dict(pipeline.scheduler.config).items() if key != "_use_default_values"}
    return identity([flags, config, plan.given, plan.lengths, len(plan.lengths)])


@dataclass(frozen=True)
class SamplePlan:
    """What there is to draw.

    Args:
        lengths (`list[int]`): one number for each sample; those with equal ones share calls.
        make: draws samples by number.
        given: what all samples begin with, as text or ids.
    """

    lengths: list[int]
    make: Callable[[Sequence[int]], list[Sample]]
    given: Any

    def batches(self, most: int, done: Collection[int]) -> Iterator[list[int]]:
        """Numbers of samples that are not done, at most so many at a time."""
        by_length: dict[int, list[int]] = {}
        for i, length in enumerate(self.lengths):
            if i not in done:
                by_length.setdefault(length, []).append(i)
        for group in by_length.values():
            yield from (group[first : first + most] for first in range(0, len(group), most))


def of_one_canvas(args: argparse.Namespace, pipeline: Any) -> SamplePlan:
    """Samples of one canvas."""
    canvas = {"prefix": args.prefix, "suffix": args.suffix, "length": args.length}
    lengths = [0] * (args.num_samples or NUM_SAMPLES)
    return SamplePlan(lengths, lambda here: call(args, pipeline, here, num_samples=len(here), **canvas), canvas)


def in_canvases(args: argparse.Namespace, pipeline: Any) -> SamplePlan:
    """Samples for each canvas of a file, by its place there. Canvases of one length are filled in together."""
    canvases = read_canvases(args.infill, pipeline)
    rows = [i for i in range(len(canvases)) for _ in range(args.num_samples or 1)]

    def fill(here: Sequence[int]) -> list[Sample]:
        return call(args, pipeline, here, input_ids=torch.stack([canvases[rows[i]] for i in here]), num_samples=1)

    return SamplePlan([len(canvases[i]) for i in rows], fill, canvases)


def after_prompts(args: argparse.Namespace, pipeline: Any, prompts: dict[str, list[Any]]) -> SamplePlan:
    """Answers to each prompt, in their order."""
    ((name, entries),) = prompts.items()
    # of all prompts together, so that no answer depends on its batch
    options = block_options(args, pipeline.denoiser)
    options["max_new_tokens"] = pipeline.new_tokens({name: entries, **options})
    rows = [i for i in range(len(entries)) for _ in range(args.num_samples or 1)]

    def answer(here: Sequence[int]) -> list[Sample]:
        asked = [entries[rows[i]] for i in here]
        made = call(args, pipeline, here, **{name: asked}, **options)
        return [{name: entry, **sample} for entry, sample in zip(asked, made, strict=True)]

    return SamplePlan([0] * len(rows), answer, [name, entries, options])


def shared(workers: Workers, batch: Sequence[int], make: Callable[[Sequence[int]], list[Sample]]) -> dict[int, Sample]:
    """The samples of a batch by number. Each process draws a share of them."""
    here = batch[workers.rank * len(batch) // workers.size : (workers.rank + 1) * len(batch) // workers.size]
    shares = workers.gather(make(here) if here else [])
    return dict(zip(batch, itertools.chain(*shares), strict=True))


def call(args: argparse.Namespace, pipeline: Any, samples: Sequence[int], **canvas: Any) -> list[Sample]:
    """These samples. Each has noise of its own, so it makes no difference which are drawn together."""
    if args.guidance_scale is not None:
        canvas["guidance_scale"] = args.guidance_scale
    with within_memory(args, "--batch-size", len(samples)):
        output: Any = pipeline(
            **canvas,
            num_inference_steps=args.nfe * pipeline.number_of_blocks(canvas),
            temperature=args.temperature,
            generator=row_generators(args.seed, samples, NOT_OF_TRAINING),
        )
    sequences = output.sequences
    if "max_new_tokens" in canvas:
        sequences = sequences[:, -canvas["max_new_tokens"] :]
    sequences = sequences.tolist()
    texts = output.texts or [" ".join(map(str, ids)) for ids in sequences]
    return [{"text": text, "ids": ids} for text, ids in zip(texts, sequences, strict=True)]


def main(argv: list[str] | None = None) -> int:
    return run(command, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
