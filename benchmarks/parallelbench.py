"""Closed-form tasks of ParallelBench (https://arxiv.org/abs/2510.04767, section 4): the share of right answers of an
ideal model that reveals k tokens a call at random, by formula and by our samplers.

    python benchmarks/parallelbench.py

`shuffle` puts L words in any order. `replace_one` replaces one random word of a list by another. The model is exact.
"""

import argparse
import math
import sys
from itertools import accumulate
from typing import Any

import torch

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.evaluation.tables import format_table


SAMPLERS = {
    "random": {"order": "random"},
    "halton": {"order": "halton"},
    "confidence": {"order": "confidence", "confidence_temperature": 0.0},
    "margin": {"order": "margin", "confidence_temperature": 0.0},
}


def shuffle_accuracy(sizes: list[int]) -> float:
    """The probability that groups of these sizes, each drawn at once, hold no word twice."""
    left = [sum(sizes) - known for known in accumulate(sizes, initial=0)]
    return math.prod(math.perm(r, k) / r**k for k, r in zip(sizes, left, strict=False))


def replace_one_accuracy(sizes: list[int]) -> float:
    """The probability that exactly one word is replaced: none in the groups before, and one in its own group."""
    none, right, left = 1.0, 0.0, sum(sizes)
    for k in sizes:
        right += none * k / left * (1 - 1 / left) ** (k - 1)
        none *= (1 - 1 / left) ** k
        left -= k
    return right


CLOSED_FORMS = {"shuffle": shuffle_accuracy, "replace_one": replace_one_accuracy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[4, 6])
    parser.add_argument("--num-samples", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = []
    for task, closed_form in CLOSED_FORMS.items():
        for length in args.lengths:
            pipe: Any = MaskedDiffusionPipeline.from_pretrained(f"{task}:L={length}")
            pipe.set_progress_bar_config(disable=True)
            for k in [k for k in range(length, 0, -1) if length % k == 0]:
                row = {"task": task, "length": length, "k": k, "formula": closed_form([k] * (length // k))}
                shares = {name: share_right(pipe, options, length // k, args) for name, options in SAMPLERS.items()}
                rows.append(row | shares)
    columns = {"task": "task", "length": "L", "k": "a call", "formula": "closed form"} | {n: n for n in SAMPLERS}
    sys.stdout.write(format_table(rows, columns) + "\n")


def share_right(pipe: Any, options: dict[str, Any], num_calls: int, args: argparse.Namespace) -> float:
    pipe.scheduler = LSDScheduler(**pipe.denoiser.scheduler_config(), **options)
    generator = torch.Generator().manual_seed(args.seed)
    out: Any = pipe(
        num_samples=args.num_samples, num_inference_steps=num_calls, generator=generator, output_type="ids"
    )
    return float(pipe.denoiser.log_prob(out.sequences).isfinite().double().mean())


if __name__ == "__main__":
    main()
