"""Watch a text appear, in 8 network calls and in 64: one HTML file with a scrubber, for any browser, offline.

    python examples/animate_canvas.py
    python examples/animate_canvas.py --prefix "My dear" --calls 4 32 --seed 1 --sampler my-sampler

Both texts come from the small model of English novels that is part of the repository, with the same seed.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline


HERE = Path(__file__).resolve().parent


def record(pipe: MaskedDiffusionPipeline, prefix: str, calls: int, **options: Any) -> dict[str, Any]:
    """One generation: the texts of its tokens, and for each token the call that revealed it (0: it was given)."""
    mask, given = pipe.denoiser.mask_token_id, pipe.tokenizer(prefix).input_ids
    canvases = [torch.tensor(given + [mask] * (pipe.denoiser.length - len(given)))]

    def keep(pipe: Any, step: int, timestep: torch.Tensor, tensors: dict[str, torch.Tensor]) -> None:
        canvases.append(tensors["sample"][0])

    pipe(input_ids=canvases[0], num_inference_steps=calls, callback_on_step_end=keep, **options)
    revealed_by = (torch.stack(canvases) == mask).sum(0)  # known tokens never change
    tokens = [pipe.tokenizer.decode([token]) for token in canvases[-1].tolist()]
    return {"calls": calls, "tokens": tokens, "steps": revealed_by.tolist()}


def write_page(data: dict[str, Any], path: Path) -> None:
    template = (HERE / "animate_canvas.html").read_text(encoding="utf-8")
    embedded = json.dumps(data).replace("<", "\\u003c")  # no text can close the script that holds it
    path.write_text(template.replace("__DATA__", embedded), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(HERE.parent / "models" / "books-radd"), help="with a tokenizer")
    parser.add_argument(
        "--sampler", help="folder or Hub id of a learned sampler; default: halton order, nothing learned"
    )
    parser.add_argument("--calls", type=int, nargs=2, default=[8, 64], help="network calls of the two texts")
    parser.add_argument("--prefix", default="It was")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=lambda name: Path(name).expanduser(), default=Path("canvas.html"))
    args = parser.parse_args()
    pipe = MaskedDiffusionPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    if args.sampler:
        pipe.scheduler = LSDScheduler.from_pretrained(args.sampler)
    else:
        pipe.scheduler = LSDScheduler.from_config(pipe.scheduler.config, order="halton")

    runs = []
    for calls in args.calls:
        generator = torch.Generator().manual_seed(args.seed)
        runs.append(record(pipe, args.prefix, calls, temperature=args.temperature, generator=generator))
    sampler = f"sampler {args.sampler}" if args.sampler else "halton order, nothing learned"
    settings = [f"model {Path(args.model).name}", sampler, f"temperature {args.temperature:g}", f"seed {args.seed}"]
    write_page({"runs": runs, "settings": settings}, args.output)
    for run in runs:
        print(f"{run['calls']} network calls:\n{''.join(run['tokens'])}\n")
    print(f"Saved {args.output}: open it in a browser.")


if __name__ == "__main__":
    main()
