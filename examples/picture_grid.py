"""One picture of what few network calls do to an image model: samplers in rows, numbers of calls in columns.

    python examples/picture_grid.py
    python examples/picture_grid.py --samplers random halton learned=my-sampler --nfe 4 8 --seed 1 --output grid.png

All cells have the same noise and classes. The model of garments is part of the repository. A sampler is an order, a
baseline as for lsd-eval (`tweedie:halton:cosine`), or the folder or Hub id of a learned one.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.cli.evaluation_parts import baseline
from lsd_sampler.denoisers.patch_codebook import PatchCodebook
from lsd_sampler.sampling.orders import ORDERS


MODEL = Path(__file__).resolve().parents[1] / "models" / "garments"
SAMPLERS = ["random", "halton", "confidence", "margin", f"learned={MODEL}-default"]
INK, GREY, LINE, PAPER = 32, 120, 215, 255
ZOOM, GAP, LABEL, HEAD, FOOT, MARGIN, ACROSS = 4, 36, 190, 84, 56, 24, 2  # pixels, and pictures side by side


def sampler(text: str, config: dict) -> tuple[str, LSDScheduler]:
    """The label and the scheduler of an entry of `--samplers`."""
    if text in ORDERS.names():
        return text, baseline(f"tweedie:{text}{':cosine' if ORDERS[text].looks_at_logits else ''}", config)
    label, _, folder = text.rpartition("=") if "@" not in text else ("", "", text)
    if label or (":" not in text and (Path(text).is_dir() or "/" in text)):
        return label or Path(folder).resolve().name, LSDScheduler.from_pretrained(folder)
    return text, baseline(text, config)


def block(images: torch.Tensor) -> Image.Image:
    """Some pictures as one, dark on white."""
    filled = torch.cat([images, images.new_zeros(-len(images) % ACROSS, *images.shape[1:])])
    grid = F.pad(filled, (1, 1, 1, 1)).unflatten(0, (-1, ACROSS)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
    return Image.fromarray(np.kron((255 * (1 - grid)).round().byte().numpy(), np.ones((ZOOM, ZOOM), np.uint8)))


def draw(cells: dict[str, list[Image.Image | None]], headings: list[tuple[str, str]], caption: str) -> Image.Image:
    """The whole picture: a row for each sampler, with its label; above each column a heading of two lines."""
    width, height = next(cell.size for row in cells.values() for cell in row if cell)
    small, middle, big = map(ImageFont.load_default, (24, 30, 36))
    columns = [MARGIN + LABEL + j * (width + GAP) for j in range(len(headings))]
    bottom = HEAD + len(cells) * (height + GAP)
    sheet = Image.new("L", (columns[-1] + width + MARGIN, bottom + FOOT), PAPER)
    pen = ImageDraw.Draw(sheet)
    for x, (number, unit) in zip(columns, headings, strict=True):
        pen.text((x + width // 2, 28), number, INK, big, anchor="mm")
        pen.text((x + width // 2, 62), unit, GREY, small, anchor="mm")
    for y, (name, row) in zip(range(HEAD + (GAP + height) // 2, bottom, height + GAP), cells.items(), strict=True):
        pen.text((MARGIN, y), name, INK, middle, anchor="lm")
        for x, cell in zip(columns, row, strict=True):
            if cell:
                sheet.paste(cell, (x, y - height // 2))
            else:
                pen.text((x + width // 2, y), "not learned", GREY, small, anchor="mm")
    for y in range(HEAD, bottom + 1, height + GAP):
        pen.line((MARGIN, y, sheet.width - MARGIN, y), LINE, 2)
    pen.text((MARGIN, bottom + FOOT // 2), caption, GREY, small, anchor="lm")
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(MODEL), help="with a codebook.safetensors")
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS)
    parser.add_argument("--nfe", type=int, nargs="+", help="network calls; default: 2 4 8 16 and one token a call")
    parser.add_argument("--classes", type=int, nargs="+", default=[0, 5, 8, 9])
    for flag, kind, default in (("seed", int, 0), ("guidance-scale", float, 0.5), ("temperature", float, 1.0)):
        parser.add_argument(f"--{flag}", type=kind, default=default, help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("picture_grid.png"))
    args = parser.parse_args()
    pipe = MaskedDiffusionPipeline.from_pretrained(args.model)
    codebook, length = PatchCodebook.from_pretrained(args.model), pipe.denoiser.length
    asked = {"num_samples": len(args.classes), "class_labels": args.classes, "output_type": "ids"}
    asked |= {name: vars(args)[name] for name in ("guidance_scale", "temperature")}
    nfe, cells = args.nfe or [2, 4, 8, 16, length], {}
    for name, pipe.scheduler in [sampler(text, pipe.denoiser.scheduler_config()) for text in args.samplers]:
        made = [
            pipe(num_inference_steps=steps, generator=torch.Generator().manual_seed(args.seed), **asked).sequences
            if pipe.scheduler.can_do(steps) else None for steps in nfe
        ]  # fmt: skip
        cells[name] = [None if tokens is None else block(codebook.decode(tokens)) for tokens in made]
    headings = [(str(steps), "calls" if steps < length else "calls, one token each") for steps in nfe]
    caption = f"In every cell: guidance {args.guidance_scale:g}, temperature {args.temperature:g}, seed {args.seed}"
    draw(cells, headings, f"{caption}, same classes").save(args.output, optimize=True)
    print(f"Saved {args.output}: {', '.join(cells)}")


if __name__ == "__main__":
    main()
