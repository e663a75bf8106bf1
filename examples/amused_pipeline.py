"""Swap the scheduler in diffusers' aMUSEd pipeline: its own, ours, and ours distilled for the model, at equal calls.

    python examples/amused_pipeline.py
    python examples/amused_pipeline.py --pipeline amused/amused-256 --prompt "a lighthouse at dusk"

Without `--pipeline` the model is the exact one of `landscapes.py`: seconds on a CPU, offline, and the sampler's errors
can be counted. Each row of the saved image is one scheduler.
"""

import argparse

import torch
from diffusers import AmusedPipeline
from diffusers.utils import make_image_grid
from landscapes import NO_PROMPT, landscape_pipeline, misplaced
from PIL import ImageOps

from lsd_sampler import DistillConfig, LSDScheduler, distill


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", help="folder or Hub id of an AmusedPipeline; default: the exact model")
    parser.add_argument("--prompt", default="a lighthouse at dusk", help="for --pipeline")
    parser.add_argument("--sampler", help="folder or Hub id of a learned sampler; default: distil one here")
    parser.add_argument("--num-sequences", type=int, default=16, help="images to distil it from")
    parser.add_argument("--steps", type=int, default=8, help="network calls for each image")
    parser.add_argument("--num-images", type=int, default=6)
    parser.add_argument("--output", default="amused.png")
    args = parser.parse_args()
    if args.pipeline:
        pipe, call = AmusedPipeline.from_pretrained(args.pipeline), {"prompt": args.prompt}
        pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    else:
        pipe, call = landscape_pipeline(), NO_PROMPT

    schedulers = {"its own": pipe.scheduler, "ours, plain": LSDScheduler.from_config(pipe.scheduler.config)}
    if args.sampler:
        schedulers["ours, learned"] = LSDScheduler.from_pretrained(args.sampler)
    else:
        config = DistillConfig(method="path_kl", nfe=(args.steps,), num_sequences=args.num_sequences)
        schedulers["ours, learned"] = distill(pipe, config, **call)

    calls, rows = [], []
    pipe.transformer.register_forward_hook(lambda *_: calls.append(1))
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": args.steps, "num_images_per_prompt": args.num_images}
    for name, scheduler in schedulers.items():
        pipe.scheduler = scheduler
        calls.clear()
        images = pipe(**call, **options, generator=torch.Generator().manual_seed(0)).images
        errors = "" if args.pipeline else f", {misplaced(images):.1%} of the tokens fit no landscape"
        print(f"{name + ':':15}{len(calls)} network calls{errors}")
        rows += [ImageOps.expand(image, border=8, fill="white") for image in images]
    make_image_grid(rows, rows=len(schedulers), cols=args.num_images).save(args.output)
    print(f"Saved {args.output}, one row for each of them.")


if __name__ == "__main__":
    main()
