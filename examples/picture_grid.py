"""One picture of what few network calls do to an image model: samplers in rows, numbers of calls in columns.

    python examples/picture_grid.py
    python examples/picture_grid.py --samplers random halton my-sampler --nfe 4 8 --seed 1 --output grid.png

All cells have the same noise and the same classes. The model, a small one of garments, is part of the repository. A
sampler is an order (`random`, `halton`, `confidence`, ...), a baseline as for lsd-eval (`tweedie:halton:cosine`), or
the folder or Hub id of a learned one; cells for which it learned nothing stay empty.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.cli.evaluation_parts import baseline
from lsd_sampler.denoisers.patch_codebook import PatchCodebook
from lsd_sampler.sampling.orders import ORDERS


HERE = Path(__file__).resolve().parent
MODEL = HERE.parent / "models" / "garments"
INK, PALE, PAPER = 32, 150, 255
ZOOM, GAP, LABEL, HEAD, FOOT, MARGIN, ACROSS = 3, 30, 210, 74, 50, 20, 3  # pixels, and pictures side by side


def sampler(text: str, config: dict[str, Any]) -> tuple[str, LSDScheduler]:
    """The label and the scheduler of an entry of `--samplers`."""
    if text in ORDERS.names():
        schedule = ":cosine" if ORDERS[text].looks_at_logits else ""
        return text, baseline(f"tweedie:{text}{schedule}", config)
    if Path(text).expanduser().is_dir() or ("/" in text and ":" not in text):
        return Path(text).expanduser().resolve().name, LSDScheduler.from_pretrained(text)
    return text, baseline(text, config)


def block(images: torch.Tensor) -> Image.Image:
    """Some pictures as one, dark on white."""
    H, W = images.shape[1:]
    padded = torch.cat([images, images.new_zeros(-len(images) % ACROSS, H, W)])
    grid = padded.unflatten(0, (-1, ACROSS)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
    pixels = (255 * (1 - grid)).round().byte().numpy()
    return Image.fromarray(np.kron(pixels, np.ones((ZOOM, ZOOM), np.uint8)))


def draw(cells: dict[str, list[Image.Image | None]], headings: list[tuple[str, str]], caption: str) -> Image.Image:
    """The whole picture: a row for each sampler, with its label; above each column a heading of two lines."""
    width, height = next(cell.size for row in cells.values() for cell in row if cell)
    font, small, big = (ImageFont.load_default(size) for size in (26, 20, 30))
    size = (MARGIN + LABEL + len(headings) * (width + GAP), HEAD + len(cells) * (height + GAP) + FOOT)
    sheet = Image.new("L", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    for j, (number, unit) in enumerate(headings):
        x = MARGIN + LABEL + j * (width + GAP) + width // 2
        pen.text((x, 26), number, INK, big, anchor="mm")
        pen.text((x, 54), unit, PALE, small, anchor="mm")
    for i, (name, row) in enumerate(cells.items()):
        y = HEAD + i * (height + GAP)
        pen.line((MARGIN, y, size[0] - MARGIN, y), 215, 2)
        pen.text((MARGIN, y + GAP // 2 + height // 2), name, INK, font, anchor="lm")
        for j, cell in enumerate(row):
            x = MARGIN + LABEL + j * (width + GAP)
            if cell:
                sheet.paste(cell, (x, y + GAP // 2))
            else:
                pen.text((x + width // 2, y + GAP // 2 + height // 2), "not learned", PALE, small, anchor="mm")
    pen.line((MARGIN, size[1] - FOOT, size[0] - MARGIN, size[1] - FOOT), 215, 2)
    pen.text((MARGIN, size[1] - FOOT // 2), caption, PALE, small, anchor="lm")
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(MODEL), help="with a codebook.safetensors")
    parser.add_argument("--samplers", nargs="+", default=["random", "halton", "confidence"])
    parser.add_argument("--nfe", type=int, nargs="+", help="network calls; default: 2 4 8 16 and one token a call")
    parser.add_argument("--classes", type=int, nargs="+", default=[0, 3, 8, 1, 5, 9])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance-scale", type=float, default=0.5)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--output", type=lambda name: Path(name).expanduser(), default=Path("picture_grid.png"))
    args = parser.parse_args()
    pipe = MaskedDiffusionPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    codebook, length = PatchCodebook.from_pretrained(args.model), pipe.denoiser.length
    asked = {"guidance_scale": args.guidance_scale, "temperature": args.temperature, "output_type": "ids"}
    asked |= {"num_samples": len(args.classes), "class_labels": args.classes}
    nfe, cells = args.nfe or [2, 4, 8, 16, length], {}
    for name, pipe.scheduler in (sampler(text, pipe.denoiser.scheduler_config()) for text in args.samplers):
        cells[name] = []
        for steps in nfe:
            noise, made = torch.Generator().manual_seed(args.seed), None
            if pipe.scheduler.can_do(steps):
                out = pipe(num_inference_steps=steps, generator=noise, **asked)
                made = block(codebook.decode(out.sequences))
            cells[name].append(made)
    headings = [(str(steps), "calls" if steps < length else "calls: one token each") for steps in nfe]
    settings = f"guidance {args.guidance_scale:g}, temperature {args.temperature:g}, seed {args.seed}"
    caption = f"{Path(args.model).resolve().name}: {settings}; the same noise and classes in every cell"
    draw(cells, headings, caption).save(args.output, optimize=True)
    print(f"Saved {args.output}: {' / '.join(cells)} at {' / '.join(map(str, nfe))} network calls.")


if __name__ == "__main__":
    main()
