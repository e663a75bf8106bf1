"""Fill in the middle: between a prefix and a suffix, or holes anywhere in a text, in 8 network calls.

    python examples/infilling.py
    python examples/infilling.py --text "My dear {3}, I {8} before you came." --num-samples 6

The model is the small one of English novels that comes with the repository. `{8}` is a hole of 8 tokens (words, or
parts of them). The given text never changes; the model's words are shown in brackets.
"""

import argparse
import re
from itertools import groupby
from pathlib import Path

import torch

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline


MODEL = Path(__file__).resolve().parents[1] / "models" / "books-radd"


def with_holes(pipe: MaskedDiffusionPipeline, text: str) -> list[int]:
    """Token ids of a text, with n mask ids for each hole `{n}`."""
    ids: list[int] = []
    for part in re.split(r" ?(\{\d+\})", text):  # the space before a word belongs to its token
        if re.fullmatch(r"\{\d+\}", part):
            ids += [pipe.denoiser.mask_token_id] * int(part[1:-1])
        else:
            ids += encode(pipe, part)
    return ids


def encode(pipe: MaskedDiffusionPipeline, text: str) -> list[int]:
    return pipe.tokenizer(text, add_special_tokens=False).input_ids


def in_brackets(pipe: MaskedDiffusionPipeline, tokens: list[int], is_hole: list[bool]) -> str:
    """The text in one line, with brackets around what was filled in."""
    shown = ""
    for hole, run in groupby(zip(tokens, is_hole, strict=True), key=lambda pair: pair[1]):
        text = pipe.tokenizer.decode([token for token, _ in run])
        shown += re.sub(r"^(\s*)(.*)$", r"\1[\2]", text, flags=re.DOTALL) if hole else text
    return " ".join(shown.split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(MODEL), help="what MaskedDiffusionPipeline loads, with a tokenizer")
    parser.add_argument("--sampler", help="folder or Hub id of a learned sampler; default: the halton order alone")
    parser.add_argument("--prefix", default="It was a dark night,")
    parser.add_argument("--suffix", default=" and the fire went out.")
    parser.add_argument("--middle", type=int, default=8, help="tokens between prefix and suffix")
    parser.add_argument("--text", default='"I have {6}," said the lady, and she {5} into the fire.')
    parser.add_argument("--steps", type=int, default=8, help="network calls")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--num-samples", type=int, default=4)
    args = parser.parse_args()
    pipe = MaskedDiffusionPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    if args.sampler:
        pipe.scheduler = LSDScheduler.from_pretrained(args.sampler)
    else:
        pipe.scheduler = LSDScheduler.from_config(pipe.scheduler.config, order="halton")

    options = {"num_inference_steps": args.steps, "temperature": args.temperature, "num_samples": args.num_samples}
    ends = [len(encode(pipe, args.prefix)), len(encode(pipe, args.suffix))]
    generator = torch.Generator().manual_seed(0)
    between = pipe(args.prefix, args.suffix, length=sum(ends) + args.middle, generator=generator, **options)
    print(f"{args.middle} tokens between a prefix and a suffix, {args.steps} network calls:")
    is_hole = [False] * ends[0] + [True] * args.middle + [False] * ends[1]
    for tokens in between.sequences.tolist():
        print("  " + in_brackets(pipe, tokens, is_hole))

    canvas = with_holes(pipe, args.text)
    filled = pipe(input_ids=canvas, generator=generator, **options)
    print(f"\n{args.text}")
    for tokens in filled.sequences.tolist():
        print("  " + in_brackets(pipe, tokens, [token == pipe.denoiser.mask_token_id for token in canvas]))


if __name__ == "__main__":
    main()
