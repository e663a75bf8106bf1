"""Train a small masked diffusion model (RADD or SEDD format), or a GPT-2 judge, on any text file.

    python examples/train_text_model.py --kind masked --text train.txt --valid valid.txt --output-dir books-radd
    python examples/train_text_model.py --kind sedd --text train.txt --valid valid.txt --output-dir books-sedd \
        --init books-radd
    python examples/train_text_model.py --kind causal --text train.txt --valid valid.txt --output-dir books-gpt2 \
        --tokenizer books-radd/tokenizer.json

The first makes a byte-pair tokenizer too. SEDD may start from the weights of a RADD model, whose network is its own
without the time. A run that was stopped goes on from its last checkpoint when called again.
At the end the folder holds the model in bfloat16 safetensors, its tokenizer, a card with the measured losses, and
`training.jsonl`.
"""

import argparse
import io
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import ByteLevelBPETokenizer, Tokenizer, pre_tokenizers
from trainer import Batch, Trainer, add_arguments, mask_at_times, mask_tokens, masked_loss, score_entropy
from transformers import GPT2Config, GPT2LMHeadModel

from lsd_sampler.denoisers import load_denoiser
from lsd_sampler.denoisers.radd import RADDDenoiser
from lsd_sampler.denoisers.sedd import SEDDDenoiser


COND_DIM = 64  # of SEDD's time embedding
LOSSES = {
    "masked": "lambda-DCE on held-out text, an upper bound of the negative log-likelihood (nats per token)",
    "sedd": "denoising score entropy on held-out text, an upper bound of the negative log-likelihood (nats per token)",
    "causal": "negative log-likelihood of held-out text (nats per token)",
}
KINDS = {
    "masked": ("RADD masked diffusion model", "[masked-diffusion, radd]"),
    "sedd": ("SEDD model (absorbing; its scores are not normalised)", "[masked-diffusion, sedd]"),
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
        "name": "small_text", "hidden_size": args.hidden_size, "n_heads": args.heads, "n_blocks": args.blocks,
        "length": args.length, "dropout": 0.0,
    }  # fmt: skip
    noise = {"type": "loglinear", "sigma_min": 1e-4, "sigma_max": 20}
    if args.kind == "sedd":
        model |= {"type": "ddit", "cond_dim": COND_DIM, "scale_by_sigma": True}
        graph = {"type": "absorb"}
        sedd = SEDDDenoiser({"tokens": args.vocab_size, "graph": graph, "noise": noise, "model": model})
        if args.init:
            start_from_radd(sedd, load_denoiser(args.init))
        return sedd
    model |= {"type": "ddit_wot", "dtype": "bfloat16"}
    return RADDDenoiser({"tokens": args.vocab_size, "noise": noise, "model": model})


@torch.no_grad()
def start_from_radd(sedd: SEDDDenoiser, radd: RADDDenoiser) -> None:
    """Gives SEDD the network of RADD: gates of 1, no scales, the biases of RADD's norms as shifts, at any time.

    Its logits are then those of RADD, which are log-scores but for a number per position: what is not normalised.

    Raises:
        ValueError: if the two have other sizes.
    """
    weights = {name: tensor.float() for name, tensor in radd.state_dict().items()}
    own = dict(sedd.named_parameters())
    for module in (*sedd.blocks, sedd.output_layer):
        module.adaLN_modulation.weight.zero_()
        module.adaLN_modulation.bias.zero_()
    for name, tensor in weights.items():
        if name in own and own[name].shape != tensor.shape:
            raise ValueError(
                f"'{name}' has shape {tuple(own[name].shape)} here and {tuple(tensor.shape)} in the model to start "
                "from (`--init`): give its sizes and tokenizer."
            )
        if name in own:
            own[name].copy_(tensor)
    for index, block in enumerate(sedd.blocks):
        shift_attn, _, gate_attn, shift_mlp, _, gate_mlp = block.adaLN_modulation.bias.chunk(6)
        for gate in (gate_attn, gate_mlp):
            gate.fill_(1)
        shift_attn.copy_(weights[f"blocks.{index}.norm1.bias"])
        shift_mlp.copy_(weights[f"blocks.{index}.norm2.bias"])
    shift, _ = sedd.output_layer.adaLN_modulation.bias.chunk(2)
    shift.copy_(weights["output_layer.norm_final.bias"])


def causal_loss(model: Any, x_BL: torch.Tensor) -> torch.Tensor:
    logits = model(x_BL).logits[:, :-1].float()
    return F.cross_entropy(logits.flatten(0, 1), x_BL[:, 1:].flatten())


class TextTrainer(Trainer):
    """Batches are windows of the text, from anywhere."""

    def __init__(self, args: argparse.Namespace):
        self.tokenizer = make_tokenizer(args)
        self.train, valid = (encode(self.tokenizer, read_text(path)) for path in (args.text, args.valid))
        starts = np.linspace(0, len(valid) - args.length, args.valid_windows).astype(int)
        valid_NL = torch.stack([valid[i : i + args.length] for i in starts])
        torch.manual_seed(args.seed)
        model = build_model(args)

        def draw(generator: torch.Generator) -> Batch:
            last = len(self.train) - args.length
            start_B1 = torch.randint(last, (args.batch_size, 1), generator=generator, device=args.device).cpu()
            return (self.train[start_B1 + torch.arange(args.length)].to(args.device),)

        def noise(batch: Batch, generator: torch.Generator) -> Batch:
            if args.kind == "sedd":
                return mask_at_times(model, *batch, generator)
            return mask_tokens(*batch, model.mask_token_id, generator) if args.kind == "masked" else batch

        loss = {"masked": masked_loss, "sedd": score_entropy, "causal": causal_loss}[args.kind]
        super().__init__(args, model, loss, noise, draw, [(x.to(args.device),) for x in valid_NL.split(64)])

    def export(self) -> dict[str, Any]:
        """Writes the model in bfloat16, and a card with the loss of just that model."""
        args, summary = self.args, super().export()
        what, tags = KINDS[args.kind]
        size = f"{self.step} steps of {args.batch_size} x {args.length} tokens, {summary['minutes']:.0f} minutes"
        started = f"from the weights of {Path(args.init).name}, " if args.init else ""
        card = f"""---
language: en
license: apache-2.0
tags: {tags}
---

# {args.output_dir.name}

{what} of {summary["parameters"] / 1e6:.2f} M parameters, for tests and demos.

- Data: `{Path(args.text).name}` ({len(self.train) / 1e6:.2f} M tokens), held out: `{Path(args.valid).name}`.
  {args.data_note}
- Tokenizer: byte-pair, {args.vocab_size} tokens, each line for itself. Length {args.length}.
- Training: {started}{size} on {summary["device"]}, bfloat16 autocast,
  `examples/train_text_model.py --kind {args.kind}`.
- Validation loss: {summary["loss"]:.4f}, {LOSSES[args.kind]};
  {summary["valid"]} windows, weights in bfloat16 as stored here.
"""
        (args.output_dir / "README.md").write_text(card)
        return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=["masked", "sedd", "causal"], required=True)
    parser.add_argument("--text", required=True, help="training text, .txt or .txt.xz")
    parser.add_argument("--valid", required=True, help="held-out text")
    parser.add_argument("--data-note", default="", help="a sentence on the data, for the card")
    parser.add_argument("--tokenizer", help="tokenizer.json of another run; default: train one")
    parser.add_argument("--init", help="with --kind sedd: a RADD model of the same sizes, to start from")
    parser.add_argument("--vocab-size", type=int, default=2048)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--valid-windows", type=int, default=512)
    add_arguments(parser)
    args = parser.parse_args()
    if args.init and args.kind != "sedd":
        parser.error("--init needs --kind sedd.")
    if args.init and not args.tokenizer:
        args.tokenizer = str(Path(args.init) / "tokenizer.json")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    trainer = TextTrainer(args)
    parameters = sum(p.numel() for p in trainer.model.parameters())
    print(f"{parameters / 1e6:.2f} M parameters, {len(trainer.train) / 1e6:.2f} M training tokens", flush=True)
    trainer.run()
    trainer.export()


if __name__ == "__main__":
    main()
