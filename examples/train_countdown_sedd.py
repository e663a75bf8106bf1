"""Train a small SEDD model on *countdown*, as in the paper of LSD, from exact samples of the chain.

    python examples/train_countdown_sedd.py --minutes 20 --output-dir models/countdown-sedd

A run that was stopped goes on from its last checkpoint when called again. At the end the folder holds the averaged
weights in bfloat16 safetensors (`load_denoiser` reads it), a card that says how good they are, and `training.jsonl`.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import torch
from trainer import mask_at_times, score_entropy

from lsd_sampler.denoisers import Denoiser
from lsd_sampler.denoisers.markov import MarkovDenoiser, countdown
from lsd_sampler.denoisers.sedd import SEDDDenoiser


EMA_DECAY = 0.99


def build_model(args: argparse.Namespace) -> SEDDDenoiser:
    model = {
        "name": "countdown", "type": "ddit", "hidden_size": args.hidden_size, "n_heads": args.heads, "cond_dim": 64,
        "n_blocks": args.blocks, "length": args.length, "dropout": 0.0, "scale_by_sigma": True,
    }  # fmt: skip
    noise = {"type": "loglinear", "sigma_min": 1e-4, "sigma_max": 20}
    return SEDDDenoiser({"tokens": args.vocab_size, "graph": {"type": "absorb"}, "noise": noise, "model": model})


class Trainer:
    """Muon for the matrices of the blocks, AdamW for the rest; warm-up, constant, then linear decay over the second
    half. The weights that are kept are an exponential moving average.
    """

    def __init__(self, args: argparse.Namespace, oracle: MarkovDenoiser):
        self.args, self.oracle = args, oracle
        torch.manual_seed(args.seed)
        self.model, self.ema = build_model(args), build_model(args).eval()
        self.ema.load_state_dict(self.model.state_dict())
        named = list(self.model.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and "blocks" in name and "adaLN" not in name]
        others = [p for _, p in named if all(p is not matrix for matrix in matrices)]
        self.optimizers = [
            torch.optim.Muon(matrices, lr=args.lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.step, self.elapsed, self.state_file = 0, 0.0, args.output_dir / "training_state.pt"
        if self.state_file.exists():
            state = torch.load(self.state_file, weights_only=True)
            self.step, self.elapsed = state["step"], state["elapsed"]
            for part, saved in zip(self._parts(), state["parts"], strict=True):
                part.load_state_dict(saved)

    def _parts(self) -> list:
        return [self.model, self.ema, *self.optimizers]

    def save(self) -> None:
        state = {"step": self.step, "elapsed": self.elapsed, "parts": [part.state_dict() for part in self._parts()]}
        torch.save(state, self.state_file.with_suffix(".tmp"))
        os.replace(self.state_file.with_suffix(".tmp"), self.state_file)

    @property
    def progress(self) -> float:
        return max(self.step / self.args.steps, self.elapsed / (60 * self.args.minutes))

    @torch.no_grad()
    def evaluate(self, model: Denoiser) -> float:
        """The loss on new sequences, an upper bound of their negative log-likelihood; the same draws for any model."""
        generator = torch.Generator().manual_seed(1234)
        x_NL = self.oracle.sample(self.args.valid_sequences, generator)
        with torch.autocast("cpu", torch.bfloat16):
            losses = [score_entropy(model, *mask_at_times(model, x_BL, generator)).item() for x_BL in x_NL.split(64)]
        return sum(losses) / len(losses)

    def train_step(self) -> float:
        args = self.args
        rate = args.lr * min(1.0, (self.step + 1) / args.warmup) * max(0.0, min(1.0, 2 * (1 - self.progress)))
        # the batch depends on (seed, step) alone, so a resumed run sees the same data
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + self.step)
        x_BL = self.oracle.sample(args.batch_size, generator)
        with torch.autocast("cpu", torch.bfloat16):
            loss = score_entropy(self.model, *mask_at_times(self.model, x_BL, generator))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        decay = min(EMA_DECAY, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for averaged, current in zip(self.ema.parameters(), self.model.parameters(), strict=True):
                averaged.lerp_(current, 1 - decay)
        return loss.item()

    def run(self) -> None:
        losses, last_save = [], time.monotonic()
        while self.progress < 1:
            tic = time.monotonic()
            losses.append(self.train_step())
            self.step, self.elapsed = self.step + 1, self.elapsed + time.monotonic() - tic
            if self.step % self.args.report_every == 0 or self.progress >= 1:
                row = {"step": self.step, "minutes": round(self.elapsed / 60, 2)}
                row |= {"train_loss": sum(losses) / len(losses), "valid_loss": self.evaluate(self.ema)}
                print(json.dumps(row), flush=True)
                with open(self.args.output_dir / "training.jsonl", "a") as file:
                    file.write(json.dumps(row) + "\n")
                losses = []
            if time.monotonic() - last_save > 120 or self.progress >= 1:
                self.save()
                last_save = time.monotonic()

    def export(self) -> None:
        """Writes the averaged weights in bfloat16, and a card with the loss of just these."""
        args = self.args
        self.ema.to(torch.bfloat16).save_pretrained(args.output_dir)
        loss, parameters = self.evaluate(self.ema), sum(p.numel() for p in self.ema.parameters()) / 1e6
        chain = f"countdown:V={args.vocab_size},L={args.length}"
        card = f"""---
license: apache-2.0
tags: [masked-diffusion, sedd]
---

# {args.output_dir.name}

SEDD model of {parameters:.2f} M parameters (absorbing, log-linear noise), for tests and benchmarks.

- Data: exact samples of the Markov chain `{chain}` (s goes to s - 1, and 0 to any state alike).
- Training: {self.step} steps of {args.batch_size} x {args.length} tokens, {self.elapsed / 60:.0f} minutes on a CPU,
  bfloat16 autocast, denoising weighted score entropy, moving average of weights {EMA_DECAY};
  `examples/train_countdown_sedd.py --minutes {args.minutes:g} --batch-size {args.batch_size}`.
- Validation loss: {loss:.4f} nats per token, an upper bound of the negative log-likelihood
  ({args.valid_sequences} new sequences, weights in bfloat16 as stored here).
  The exact denoiser has {self.evaluate(self.oracle):.4f} on the same draws.
"""
        (args.output_dir / "README.md").write_text(card)
        print(f"validation loss of the exported model: {loss:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", required=True, type=lambda name: Path(name).expanduser())
    parser.add_argument("--vocab-size", type=int, default=32, help="states of the chain")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="decay the learning rate to 0 and stop by then"
    )
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--warmup", type=int, default=50)
    parser.add_argument("--valid-sequences", type=int, default=512)
    parser.add_argument("--report-every", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(args, countdown(args.vocab_size, args.length))
    trainer.run()
    trainer.export()


if __name__ == "__main__":
    main()
