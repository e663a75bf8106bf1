"""Train a small masked model (Halton-MaskGIT format: one learned vector a cell) on sudoku with any number of clues.

    python examples/train_sudoku.py --output-dir models/sudoku
    python examples/train_sudoku.py --output-dir sudoku4 --size 4 --blocks 3 --hidden-size 64 --heads 2 --minutes 5

The data are complete grids: a clue is a token that is not masked. They are made here, at random, and every batch shows
them under random symmetries. The first command is meant for a GPU (10 minutes); 4 x 4 and 6 x 6 train on a CPU. A run
that was stopped goes on from its last checkpoint when called again. At the end the folder holds the model in bfloat16
safetensors, its tokenizer, `training.jsonl`, and a card with the held-out loss and the share of puzzles that one token
a call solves (`--judge` samples and writes the card again).
"""

import argparse
import json
import math
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from train_garments import initialise
from trainer import Batch, Trainer, add_arguments, mask_tokens, masked_loss, training_lines

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.denoisers.maskgit import MaskGITDenoiser
from lsd_sampler.support.sudoku import BOXES, is_solved, random_grids


ORDERS = {"random order": "random", "surest cell first": "entropy"}


def transform(grids: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """The same grids under random symmetries of sudoku: of digits, rows, columns, bands, stacks, and transposition."""
    N, device, (height, width) = len(grids), grids.device, BOXES[size]

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator, device=device)

    def lines(thickness: int) -> torch.Tensor:
        """Lines in a new order, in which those of a band stay together."""
        band = random(N, size // thickness).argsort(1).repeat_interleave(thickness, 1)
        return (band + random(N, size)).argsort(1)

    grids = random(N, size).argsort(1).gather(1, grids).view(N, size, size)
    if height == width:
        grids = torch.where(random(N, 1, 1) < 0.5, grids.transpose(1, 2), grids)
    grids = grids.gather(1, lines(height)[:, :, None].expand(-1, -1, size))
    return grids.gather(2, lines(width)[:, None].expand(-1, size, -1)).flatten(1)


def make_tokenizer(size: int) -> Tokenizer:
    """Digits, one a token, from 1."""
    tokenizer: Any = Tokenizer(models.WordLevel({str(i + 1): i for i in range(size)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\d"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def build_model(args: argparse.Namespace, size: int) -> MaskGITDenoiser:
    """A new model of grids of this size, with one class, which is never used."""
    torch.manual_seed(args.seed)
    model = MaskGITDenoiser({
        "input_size": size, "hidden_dim": args.hidden_size, "codebook_size": size, "depth": args.blocks,
        "heads": args.heads, "nclass": 1, "register": 1, "dropout": 0.0,
    })  # fmt: skip
    initialise(model)
    return model


class SudokuTrainer(Trainer):
    def __init__(self, args: argparse.Namespace):
        make_tokenizer(args.size).save(str(args.output_dir / "tokenizer.json"))
        model = build_model(args, args.size)
        # other seeds than those of the batches
        generator = torch.Generator(args.device).manual_seed(2**40 + args.seed)
        grids_NL = random_grids(args.valid + args.grids, args.size, generator, args.device).to(torch.int8)
        valid_NL, train_NL = grids_NL[: args.valid].long(), grids_NL[args.valid :]

        def draw(generator: torch.Generator) -> Batch:
            chosen_B = torch.randint(len(train_NL), (args.batch_size,), generator=generator, device=args.device)
            return (transform(train_NL[chosen_B].long(), args.size, generator),)

        def noise(batch: Batch, generator: torch.Generator) -> Batch:
            return mask_tokens(*batch, model.mask_token_id, generator)

        super().__init__(args, model, masked_loss, noise, draw, [(x,) for x in valid_NL.split(500)])
        parameters = sum(p.numel() for p in model.parameters())
        print(f"{parameters / 1e6:.2f} M parameters, {len(train_NL)} training grids", flush=True)


def share_solved(pipe: MaskedDiffusionPipeline, grids: torch.Tensor, clues: int, order: str, seed: int) -> float:
    """One token a call, from random clues of complete grids. Any valid completion counts."""
    device, (N, L) = str(pipe.device), grids.shape
    generator = torch.Generator(device).manual_seed(seed)
    given = torch.rand(N, L, generator=generator, device=device).argsort(1) < clues
    puzzles = torch.where(given, grids, pipe.denoiser.hole_id)
    pipe.scheduler = LSDScheduler(**pipe.denoiser.scheduler_config(), order=order, confidence_temperature=0.0)
    out = pipe(input_ids=puzzles, num_inference_steps=L - clues, generator=generator, output_type="ids")
    return is_solved(out.sequences, math.isqrt(L)).float().mean().item()


def write_card(args: argparse.Namespace) -> None:
    summary = json.loads((args.output_dir / "training_summary.json").read_text())
    pipe = MaskedDiffusionPipeline.from_pretrained(str(args.output_dir)).to(args.device)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator(args.device).manual_seed(2**41 + args.seed)
    grids = random_grids(args.samples, args.size, generator, args.device)
    rows = []
    for clues in args.clues:
        shares = {name: share_solved(pipe, grids, clues, order, args.seed) for name, order in ORDERS.items()}
        print(json.dumps({"clues": clues, "puzzles": len(grids), **shares}), flush=True)
        rows.append(f"| {clues} | " + " | ".join(f"{share:.3f}" for share in shares.values()) + " |")
    table = "\n".join(rows)
    card = f"""---
license: apache-2.0
tags: [masked-diffusion, maskgit, sudoku]
---

# {args.output_dir.name}

Masked model of {summary["parameters"] / 1e6:.2f} M parameters that fills in sudokus of {args.size} x {args.size}, with
any number of clues. Layout: Halton-MaskGIT, one learned vector a cell; it has one class, which was never used.

- Data: {args.grids} complete grids, made at random by `examples/train_sudoku.py`, under random symmetries of sudoku.
- Tokens: the digits, token i being digit i + 1; rows one after the other.
{training_lines(summary, args.size**2)}

Share of {len(grids)} puzzles (random clues of new grids, perhaps with several solutions) that are solved by one token
a call, temperature 1:

| clues | {" | ".join(ORDERS)} |
|---|{"---|" * len(ORDERS)}
{table}
"""
    (args.output_dir / "README.md").write_text(card)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, choices=sorted(BOXES), default=9, help="side of a grid")
    parser.add_argument("--hidden-size", type=int, default=192)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--grids", type=int, default=100_000, help="complete grids to train on")
    parser.add_argument("--valid", type=int, default=2000, help="grids held out")
    parser.add_argument("--samples", type=int, default=1000, help="puzzles to judge the model by")
    parser.add_argument("--clues", type=int, nargs="+", default=[0, 20, 30, 40], help="of these puzzles")
    parser.add_argument("--judge", action="store_true", help="no training: sample, judge and write the card")
    add_arguments(parser, batch_size=64, steps=1_000_000)
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    if not args.judge:
        trainer = SudokuTrainer(args)
        trainer.run()
        trainer.export()
    write_card(args)


if __name__ == "__main__":
    main()
