"""What it takes to learn a sampler: network calls, sequence-evaluations (their batches added up) and wall time.

    python benchmarks/training_cost.py --model sedd-small --device cuda --dtype bfloat16     # random weights
    python benchmarks/training_cost.py --model sudoku4 --nfe 4 --recipes forced_kl auto

`path_kl`, `forced_kl` and `auto` learn for all numbers of calls together. `paper` is the recipe of the paper for one
of them: `lsd` with Adam, 20 epochs. `--num-sequences` scales all of them; the paper has 64.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from generation import SIZES, make_denoiser, synchronize
from step import device_name

from lsd_sampler import Denoiser, DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill
from lsd_sampler.evaluation.tables import format_table


RECIPES = ("path_kl", "forced_kl", "auto", "paper")


@contextmanager
def counted_sequences(denoiser: Denoiser) -> Iterator[list[int]]:
    """Adds up the batch sizes of the network's calls."""
    spent, forward = [0], denoiser.forward

    def counted(input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        spent[0] += len(input_ids)
        return forward(input_ids, *args, **kwargs)

    denoiser.forward = counted
    try:
        yield spent
    finally:
        delattr(denoiser, "forward")


def recipes(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Options of each recipe, beside what all share."""
    everything = {
        "path_kl": {"method": "path_kl", "nfe": tuple(args.nfe)},
        "forced_kl": {"method": "forced_kl", "nfe": tuple(args.nfe)},
        "auto": {"nfe": tuple(args.nfe)},
        "paper": {"method": "lsd", "optimizer": "adam", "nfe": (args.paper_nfe,)},
    }
    return {name: everything[name] for name in args.recipes}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model",
        default="sedd-small",
        help="sedd or radd, - and small or medium: random weights of `--length` tokens; else what `lsd-train` takes",
    )
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--dtype", type=lambda name: getattr(torch, name), default=torch.float32)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--num-sequences", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--teacher-steps", type=int, default=1024)
    parser.add_argument("--nfe", type=int, nargs="+", default=[4, 8, 16, 32, 64])
    parser.add_argument("--paper-nfe", type=int, default=8)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=["path_kl", "auto", "paper"])
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    is_random = args.model in {f"{family}-{size}" for family in ("sedd", "radd") for size in SIZES}
    loaded = MaskedDiffusionPipeline.from_pretrained
    denoiser = make_denoiser(args.model, args.length) if is_random else loaded(args.model).denoiser
    torch.nn.Module.to(denoiser, args.device, args.dtype)
    shared = {"num_sequences": args.num_sequences, "batch_size": args.batch_size, "teacher_steps": args.teacher_steps}
    rows = []
    for name, options in recipes(args).items():
        pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config()))
        records: list[dict[str, Any]] = []
        began = time.perf_counter()
        with counted_sequences(denoiser) as spent:
            distill(pipe, DistillConfig(**{**shared, **options}), log=records.append)
        synchronize(args.device)
        row = {"recipe": name, "calls": records[-1]["network_calls"], "sequence-evaluations": spent[0]}
        row["seconds"] = round(time.perf_counter() - began, 1)
        rows.append({**row, "nfe": " ".join(map(str, options["nfe"]))})
        print(row, flush=True)
    print(f"{device_name(args.device)}; torch {torch.__version__}; {args.model}, {denoiser.length} tokens")
    print(f"{args.num_sequences} sequences, batches of {args.batch_size}, teacher of {args.teacher_steps} steps\n")
    print(format_table(rows, {name: name for name in ("recipe", "nfe", "calls", "sequence-evaluations", "seconds")}))


if __name__ == "__main__":
    main()
