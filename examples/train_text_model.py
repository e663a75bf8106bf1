"""Train a small masked diffusion model (RADD format), or a GPT-2 judge, on any text file.

    python examples/train_text_model.py --kind masked --text train.txt --valid valid.txt --output-dir books-radd
    python examples/train_text_model.py --kind causal --text train.txt --valid valid.txt --output-dir books-gpt2 \
        --tokenizer books-radd/tokenizer.json

The first makes a byte-pair tokenizer too. A run that was stopped goes on from its last checkpoint when called again.
At the end the folder holds the model in bfloat16 safetensors, its tokenizer, a card with the measured losses, and
`training.jsonl`.
"""

import argparse
import io
import json
import lzma
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import ByteLevelBPETokenizer, Tokenizer, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel

from lsd_sampler.denoisers.radd import RADDDenoiser


LOSSES = {
    "masked": "lambda-DCE on held-out text, an upper bound of the negative log-likelihood (nats per token)",
    "causal": "negative log-likelihood of held-out text (nats per token)",
}
KINDS = {
    "masked": ("RADD masked diffusion model", "[masked-diffusion, radd]"),
    "causal": ("GPT-2 model, a judge,", "[gpt2]"),
}


def read_text(path: str) -> str:
    opener = lzma.open if path.endswith(".xz") else open
    with opener(path, "rt", encoding="utf-8") as file:
        return file.read()


def encode(tokenizer: Tokenizer, text: str) -> torch.Tensor:
    lines = list(io.StringIO(text))
    return torch.from_numpy(np.concatenate([e.ids for e in tokenizer.encode_batch_fast(lines)]).astype(np.int64))


def make_tokenizer(args: argparse.Namespace) -> Tokenizer:
    file = args.output_dir / "tokenizer.json"
    if args.tokenizer and not file.exists():
        file.write_bytes(Path(args.tokenizer).read_bytes())
    if not file.exists():
        bpe = ByteLevelBPETokenizer()
        bpe.train_from_iterator(io.StringIO(read_text(args.text)), vocab_size=args.vocab_size)
        tokenizer = Tokenizer.from_str(bpe.to_str())
        # each line for itself, so that a text may be encoded line by line
        by_line: Any = [pre_tokenizers.Split("\n", "merged_with_previous"), tokenizer.pre_tokenizer]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(by_line)  # pyright: ignore[reportAttributeAccessIssue]
        tokenizer.save(str(file))
    return Tokenizer.from_file(str(file))


def build_model(args: argparse.Namespace) -> torch.nn.Module:
    if args.kind == "causal":
        config = GPT2Config(
            vocab_size=args.vocab_size, n_positions=args.length, n_embd=args.hidden_size, n_layer=args.blocks,
            n_head=args.heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
        )  # fmt: skip
        return GPT2LMHeadModel(config)
    model = {
        "name": "small_text", "type": "ddit_wot", "hidden_size": args.hidden_size, "n_heads": args.heads,
        "n_blocks": args.blocks, "length": args.length, "dropout": 0.0, "dtype": "bfloat16",
    }  # fmt: skip
    noise = {"type": "loglinear", "sigma_min": 1e-4, "sigma_max": 20}
    return RADDDenoiser({"tokens": args.vocab_size, "noise": noise, "model": model})


def masked_loss(model: Any, x_BL: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """lambda-DCE (https://huggingface.co/papers/2406.03736): mask with probability lambda, weigh by 1 / lambda.

    lambda is stratified over the batch (one shifted draw in each of B equal parts of (0, 1]), which lowers the
    variance.
    """
    B = len(x_BL)
    lam_B = (torch.arange(1, B + 1) - torch.rand((), generator=generator)) / B
    mask_BL = torch.rand(x_BL.shape, generator=generator) < lam_B[:, None]
    mask_BL, weight_BL = mask_BL.to(x_BL.device), (1 / lam_B)[:, None].expand(x_BL.shape).to(x_BL.device)
    hidden = model.hidden_states(torch.where(mask_BL, model.mask_token_id, x_BL))[mask_BL]
    logits = model.head(hidden)[:, : model.vocab_size].float()
    return (F.cross_entropy(logits, x_BL[mask_BL], reduction="none") * weight_BL[mask_BL]).sum() / x_BL.numel()


def causal_loss(model: Any, x_BL: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    logits = model(x_BL).logits[:, :-1].float()
    return F.cross_entropy(logits.flatten(0, 1), x_BL[:, 1:].flatten())


class Trainer:
    """Muon for the matrices of the blocks, AdamW for the rest; warm-up, then constant, then linear decay over the
    second half.
    """

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.tokenizer = make_tokenizer(args)
        self.train, valid = (encode(self.tokenizer, read_text(path)) for path in (args.text, args.valid))
        starts = np.linspace(0, len(valid) - args.length, args.valid_windows).astype(int)
        self.valid_NL = torch.stack([valid[i : i + args.length] for i in starts])
        torch.manual_seed(args.seed)
        self.model = build_model(args).to(args.device)
        self.loss = masked_loss if args.kind == "masked" else causal_loss
        named = list(self.model.named_parameters())
        is_matrix = [p.ndim == 2 and ("blocks" in name or ".h." in name) for name, p in named]
        matrices = [p for (_, p), chosen in zip(named, is_matrix, strict=True) if chosen]
        others = [p for (_, p), chosen in zip(named, is_matrix, strict=True) if not chosen]
        self.optimizers = [
            torch.optim.Muon(matrices, lr=args.lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.step, self.elapsed, self.state_file = 0, 0.0, args.output_dir / "training_state.pt"
        if self.state_file.exists():
            self._restore()

    def _restore(self) -> None:
        state = torch.load(self.state_file, weights_only=True, map_location=self.args.device)
        self.step, self.elapsed = state["step"], state["elapsed"]
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def save(self) -> None:
        state = {"step": self.step, "elapsed": self.elapsed, "model": self.model.state_dict()}
        state["optimizers"] = [optimizer.state_dict() for optimizer in self.optimizers]
        torch.save(state, self.state_file.with_suffix(".tmp"))
        os.replace(self.state_file.with_suffix(".tmp"), self.state_file)

    @property
    def progress(self) -> float:
        return max(self.step / self.args.steps, self.elapsed / (60 * self.args.minutes))

    def autocast(self) -> torch.autocast:
        return torch.autocast(torch.device(self.args.device).type, torch.bfloat16)

    @torch.no_grad()
    def evaluate(self) -> float:
        self.model.eval()
        generator = torch.Generator().manual_seed(1234)
        with self.autocast():
            losses = [self.loss(self.model, x.to(self.args.device), generator).item() for x in self.valid_NL.split(64)]
        self.model.train()
        return sum(losses) / len(losses)

    def train_step(self) -> float:
        args = self.args
        rate = args.lr * min(1.0, (self.step + 1) / args.warmup) * max(0.0, min(1.0, 2 * (1 - self.progress)))
        # the batch depends on (seed, step) alone, so a resumed run sees the same data
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + self.step)
        start_B1 = torch.randint(len(self.train) - args.length, (args.batch_size, 1), generator=generator)
        x_BL = self.train[start_B1 + torch.arange(args.length)].to(args.device)
        with self.autocast():
            loss = self.loss(self.model, x_BL, generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def run(self) -> None:
        running, last_save = [], time.monotonic()
        self.model.train()
        while self.progress < 1:
            tic = time.monotonic()
            running.append(self.train_step())
            self.step, self.elapsed = self.step + 1, self.elapsed + time.monotonic() - tic
            if self.step % 250 == 0 or self.progress >= 1:
                self.report(sum(running) / len(running))
                running = []
            if time.monotonic() - last_save > 120 or self.progress >= 1:
                self.save()
                last_save = time.monotonic()

    def report(self, train_loss: float) -> None:
        row = {"step": self.step, "minutes": round(self.elapsed / 60, 2), "train_loss": train_loss}
        row["valid_loss"] = self.evaluate()
        print(json.dumps(row), flush=True)
        with open(self.args.output_dir / "training.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")

    def export(self) -> None:
        """Writes the model in bfloat16, and a card with the loss of just that model."""
        args, parameters = self.args, sum(p.numel() for p in self.model.parameters()) / 1e6
        self.model.to(torch.bfloat16).save_pretrained(args.output_dir)
        loss = self.evaluate()
        what, tags = KINDS[args.kind]
        size = f"{self.step} steps of {args.batch_size} x {args.length} tokens, {self.elapsed / 60:.0f} minutes"
        card = f"""---
language: en
license: apache-2.0
tags: {tags}
---

# {args.output_dir.name}

{what} of {parameters:.2f} M parameters, for tests and demos.

- Data: `{Path(args.text).name}` ({len(self.train) / 1e6:.2f} M tokens), held out: `{Path(args.valid).name}`.
  {args.data_note}
- Tokenizer: byte-pair, {args.vocab_size} tokens, each line for itself. Length {args.length}.
- Training: {size} on {args.device}, bfloat16 autocast, `examples/train_text_model.py --kind {args.kind}`.
- Validation loss: {loss:.4f}, {LOSSES[args.kind]};
  {len(self.valid_NL)} windows, weights in bfloat16 as stored here.
"""
        (args.output_dir / "README.md").write_text(card)
        print(f"validation loss of the exported model: {loss:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=["masked", "causal"], required=True)
    parser.add_argument("--text", required=True, help="training text, .txt or .txt.xz")
    parser.add_argument("--valid", required=True, help="held-out text")
    parser.add_argument("--data-note", default="", help="a sentence on the data, for the card")
    parser.add_argument("--output-dir", required=True, type=lambda name: Path(name).expanduser())
    parser.add_argument("--tokenizer", help="tokenizer.json of another run; default: train one")
    parser.add_argument("--vocab-size", type=int, default=2048)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="decay the learning rate to 0 and stop by then"
    )
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--valid-windows", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(args)
    parameters = sum(p.numel() for p in trainer.model.parameters())
    print(f"{parameters / 1e6:.2f} M parameters, {len(trainer.train) / 1e6:.2f} M training tokens", flush=True)
    trainer.run()
    trainer.export()


if __name__ == "__main__":
    main()
