"""Train a tiny masked model on exact 4 x 4 sudoku: two minutes on 2 CPU cores, and its law is known.

    python examples/train_sudoku4.py --output-dir tiny-sudoku4
    lsd-eval --model tiny-sudoku4 --oracle sudoku4:clues=4 --nfe 2 4 12 --num-samples 512 --output-dir eval-tiny

The data are complete grids, some of the 288 that there are; the others are held out. Every batch masks a random share
of each grid. The learned vectors of cells and digits begin at unit length, and the learning rate warms up: without
either, the loss stays on its plateau for thousands of steps. Layout: Halton-MaskGIT, one learned vector a cell.

A run that was stopped goes on from its last checkpoint when called again. At the end the folder holds the model in
bfloat16 safetensors, its tokenizer, `training.jsonl`, and a card with the held-out loss and the shares of valid grids
at one token a call; and draws from the grids that it learned from, for `lsd-train --data`.
"""

import argparse
import json
from types import SimpleNamespace
from typing import Any

import torch
from train_sudoku import ORDERS, build_model, make_tokenizer
from trainer import Batch, Trainer, add_arguments, masked_loss

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.denoisers import TableDenoiser, sudoku4


CLUES = (0, 4)
NUM_DRAWS = 2048


def split_grids(num_grids: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The grids to train on, `(num_grids, 16)`, and those held out (all of them, where none is left)."""
    grids_NL = sudoku4().sequences
    grids_NL = grids_NL[torch.randperm(len(grids_NL), generator=torch.Generator().manual_seed(2**40 + seed))]
    return grids_NL[:num_grids], grids_NL[num_grids:] if num_grids < len(grids_NL) else grids_NL


def mask_uniformly(x_BL: torch.Tensor, mask_token_id: int, generator: torch.Generator) -> Batch:
    """Masks a share of each sequence, uniform in (0, 1]; [`masked_loss`] is then the mean over masked tokens, in nats.

    Args:
        x_BL (`torch.LongTensor` of shape `(batch_size, length)`): clean tokens.
        mask_token_id (`int`): the mask.
        generator (`torch.Generator`): of the device of `x_BL`.
    """
    B, device = len(x_BL), x_BL.device
    share_B1 = 1 - torch.rand(B, 1, generator=generator, device=device)
    mask_BL = torch.rand(x_BL.shape, generator=generator, device=device) < share_B1
    return torch.where(mask_BL, mask_token_id, x_BL), x_BL, mask_BL / mask_BL.float().mean().clamp(min=1e-9)


class Sudoku4Trainer(Trainer):
    def __init__(self, args: argparse.Namespace):
        make_tokenizer(4).save(str(args.output_dir / "tokenizer.json"))
        train_NL, valid_NL = (x.to(args.device) for x in split_grids(args.num_grids, args.seed))
        chosen_N = torch.randint(len(train_NL), (NUM_DRAWS,), generator=torch.Generator().manual_seed(args.seed))
        lines = (json.dumps({"ids": train_NL[i].tolist()}) for i in chosen_N.tolist())
        (args.output_dir / "data.jsonl").write_text("\n".join(lines) + "\n")
        model = build_model(args, 4)

        def draw(generator: torch.Generator) -> Batch:
            chosen_B = torch.randint(len(train_NL), (args.batch_size,), generator=generator, device=args.device)
            return (train_NL[chosen_B],)

        def noise(batch: Batch, generator: torch.Generator) -> Batch:
            return mask_uniformly(*batch, model.mask_token_id, generator)

        super().__init__(args, model, masked_loss, noise, draw, [(valid_NL.repeat(8, 1),)])
        print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(train_NL)} training grids", flush=True)

    def autocast(self) -> torch.autocast:
        device = torch.device(self.args.device).type
        return torch.autocast(device, torch.bfloat16, enabled=device != "cpu")  # slower on many CPUs, at this size

    def exact_loss(self) -> float:
        """The held-out loss of the exact law, with the masks that the model is evaluated with."""
        exact = SimpleNamespace(hidden_states=sudoku4().to(self.args.device), head=lambda logits: logits, vocab_size=4)
        return masked_loss(exact, *self.noise(self.valid[0], self.generator(1234))).item()


def share_valid(pipe: MaskedDiffusionPipeline, law: TableDenoiser, num: int, order: str, seed: int) -> float:
    """The share of valid grids among those filled in at one token a call, from random clues of exact grids."""
    canvases_NL, _ = law.canvases(num, torch.Generator().manual_seed(2**41 + seed))
    canvases_NL[canvases_NL == law.hole_id] = pipe.denoiser.hole_id
    pipe.scheduler = LSDScheduler(**pipe.denoiser.scheduler_config(), order=order, confidence_temperature=0.0)
    options: Any = {"num_inference_steps": law.length - law.clues, "output_type": "ids"}
    made = pipe(input_ids=canvases_NL, generator=torch.Generator().manual_seed(seed), **options).sequences.cpu()
    return float((law.log_prob(made) > -torch.inf).double().mean())


def write_card(args: argparse.Namespace, summary: dict[str, Any]) -> None:
    pipe = MaskedDiffusionPipeline.from_pretrained(str(args.output_dir)).to(args.device)
    pipe.set_progress_bar_config(disable=True)
    law, rows = sudoku4(), []
    for law.clues in CLUES:
        shares = {name: share_valid(pipe, law, args.samples, order, args.seed) for name, order in ORDERS.items()}
        print(json.dumps({"clues": law.clues, "grids": args.samples, **shares}), flush=True)
        rows.append(f"| {law.clues} | " + " | ".join(f"{share:.3f}" for share in shares.values()) + " |")
    table = "\n".join(rows)
    card = f"""---
license: apache-2.0
tags: [masked-diffusion, maskgit, sudoku]
---

# {args.output_dir.name}

Masked model of {summary["parameters"] / 1e6:.2f} M parameters that fills in sudokus of 4 x 4, with any number of
clues. The law is known: `lsd-eval --model {args.output_dir.name} --oracle sudoku4`. Layout: Halton-MaskGIT, one
learned vector a cell; it has one class, which was never used.

- Data: {args.num_grids} of the 288 grids.
- Tokens: the digits, token i being digit i + 1; rows one after the other.
- Training: {summary["steps"]} steps of {summary["batch_size"]} grids, {summary["minutes"]:.1f} minutes on
  {summary["device"]}, Muon and AdamW; cross-entropy of masked tokens, a random share of them in each grid; the weights
  of the least held-out loss, in bfloat16 as stored here.
- Held-out loss: {summary["loss"]:.4f} nats per masked token. The exact law of the 288 grids has
  {summary["exact_loss"]:.4f} there.

Share of {args.samples} grids that are valid (random clues of exact grids), one token a call, temperature 1:

| clues | {" | ".join(ORDERS)} |
|---|{"---|" * len(ORDERS)}
{table}
"""
    (args.output_dir / "README.md").write_text(card)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-grids", type=int, default=200, help="grids to train on, of 288; default: %(default)s")
    parser.add_argument("--hidden-size", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--samples", type=int, default=500, help="grids to judge the model by")
    add_arguments(parser, batch_size=128, steps=2000)
    args = parser.parse_args()
    if not 1 <= args.num_grids <= 288:
        parser.error(f"`--num-grids` must be in [1, 288], got {args.num_grids}.")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    trainer = Sudoku4Trainer(args)
    trainer.run()
    summary = trainer.export() | {"exact_loss": trainer.exact_loss()}
    print(json.dumps({key: summary[key] for key in ("steps", "loss", "exact_loss")}), flush=True)
    write_card(args, summary)


if __name__ == "__main__":
    main()
