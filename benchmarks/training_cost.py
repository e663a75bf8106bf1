"""What it takes to learn a sampler for a network of SEDD's dimensions (random weights): network calls and wall time.

    python benchmarks/training_cost.py --model sedd-small --device cuda --dtype bfloat16

`path_kl` and `auto` learn for all numbers of calls together. `paper` is the recipe of the paper for one of them: `lsd`
with Adam, 20 epochs. `--num-sequences` scales all of them; the paper has 64.
"""

import argparse
import time
from typing import Any

import torch
from generation import make_denoiser, synchronize
from step import device_name

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill
from lsd_sampler.evaluation.tables import format_table


RECIPES = ("path_kl", "auto", "paper")


def recipes(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Options of each recipe, beside what all share."""
    everything = {
        "path_kl": {"method": "path_kl", "nfe": tuple(args.nfe)},
        "auto": {"nfe": tuple(args.nfe)},
        "paper": {"method": "lsd", "optimizer": "adam", "nfe": (args.paper_nfe,)},
    }
    return {name: everything[name] for name in args.recipes}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sedd-small", help="FAMILY-SIZE: sedd-small, radd-medium, ...")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--dtype", type=lambda name: getattr(torch, name), default=torch.float32)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--num-sequences", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--teacher-steps", type=int, default=1024)
    parser.add_argument("--nfe", type=int, nargs="+", default=[4, 8, 16, 32, 64])
    parser.add_argument("--paper-nfe", type=int, default=8)
    parser.add_argument(
        "--recipes", nargs="+", choices=["path_kl", "auto", "paper"], default=["path_kl", "auto", "paper"]
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    denoiser = make_denoiser(args.model, args.length)
    torch.nn.Module.to(denoiser, args.device, args.dtype)
    shared = {"num_sequences": args.num_sequences, "batch_size": args.batch_size, "teacher_steps": args.teacher_steps}
    rows = []
    for name, options in recipes(args).items():
        pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config()))
        records: list[dict[str, Any]] = []
        began = time.perf_counter()
        distill(pipe, DistillConfig(**{**shared, **options}), log=records.append)
        synchronize(args.device)
        row = {"recipe": name, "calls": records[-1]["network_calls"], "seconds": round(time.perf_counter() - began, 1)}
        rows.append({**row, "nfe": " ".join(map(str, options["nfe"]))})
        print(row, flush=True)
    print(f"{device_name(args.device)}; torch {torch.__version__}; {args.model}, {args.length} tokens, random weights")
    print(f"{args.num_sequences} sequences, batches of {args.batch_size}, teacher of {args.teacher_steps} steps\n")
    print(format_table(rows, {name: name for name in ("recipe", "nfe", "calls", "seconds")}))


if __name__ == "__main__":
    main()
