"""Train a small masked diffusion model (RADD format) on molecules, written as SMILES strings.

    python examples/train_molecules.py --train train.smi.xz --output-dir models/molecules --minutes 90

A file has one molecule a line. End and padding are tokens that the model learns, so it decides about length itself. A
run that was stopped goes on from its last checkpoint when called again. At the end the folder holds the model in
bfloat16 safetensors, its tokenizer, `training.jsonl`, and a card with the held-out loss and what samples of one token
a call are worth (`--judge` samples and writes the card again, for instance where rdkit is installed).
"""

import argparse
import json
import lzma
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from trainer import Batch, Trainer, add_arguments, mask_tokens, masked_loss, training_lines

from lsd_sampler import MaskedDiffusionPipeline
from lsd_sampler.denoisers.radd import RADDDenoiser


# of the Molecular Transformer (https://arxiv.org/abs/1811.02633)
SMILES = r"\[[^\]]+\]|Br|Cl|[NOSPFIBCbcnops]|[().=#\-+\\/:~@?>*$]|%[0-9]{2}|[0-9]"
END, PADDING = "<end>", "<pad>"


def read_lines(path: str) -> list[str]:
    opener = lzma.open if path.endswith(".xz") else open
    with opener(path, "rt", encoding="utf-8") as file:
        return [line.strip() for line in file if line.strip()]


def make_tokenizer(strings: list[str], length: int) -> Tokenizer:
    """One id for each kind of token; decoding joins them without spaces, up to the end token."""
    split: Any = pre_tokenizers.Split(Regex(SMILES), "isolated")
    kinds = sorted({piece for string in strings for piece, _ in split.pre_tokenize_str(string)})
    vocabulary = {token: i for i, token in enumerate([*kinds, END, PADDING])}
    tokenizer: Any = Tokenizer(models.WordLevel(vocabulary))
    tokenizer.pre_tokenizer = split
    tokenizer.post_processor = processors.TemplateProcessing(f"$A {END}", special_tokens=[(END, vocabulary[END])])
    tokenizer.enable_padding(length=length, pad_id=vocabulary[PADDING], pad_token=PADDING)
    tokenizer.decoder = decoders.Sequence([decoders.Fuse(), decoders.Replace(Regex(f"{END}.*"), "")])
    return tokenizer


def encode(tokenizer: Tokenizer, strings: list[str], length: int) -> torch.Tensor:
    """Canvases `(len(strings), length)` with end and padding; longer strings are left out."""
    parts = []
    for start in range(0, len(strings), 10_000):  # in parts, for an encoding takes much memory
        rows = [encoding.ids for encoding in tokenizer.encode_batch_fast(strings[start : start + 10_000])]
        parts.append(torch.tensor([row for row in rows if len(row) == length], dtype=torch.uint8))
    return torch.cat(parts)


def build_model(args: argparse.Namespace, vocab_size: int) -> RADDDenoiser:
    model = {
        "name": "molecules", "type": "ddit_wot", "hidden_size": args.hidden_size, "n_heads": args.heads,
        "n_blocks": args.blocks, "length": args.length, "dropout": 0.0, "dtype": "bfloat16",
    }  # fmt: skip
    noise = {"type": "loglinear", "sigma_min": 1e-4, "sigma_max": 20}
    return RADDDenoiser({"tokens": vocab_size, "noise": noise, "model": model})


class MoleculeTrainer(Trainer):
    def __init__(self, args: argparse.Namespace):
        strings = read_lines(args.train)
        tokenizer = make_tokenizer(strings, args.length)
        tokenizer.save(str(args.output_dir / "tokenizer.json"))
        canvases_NL = encode(tokenizer, strings, args.length).to(args.device)
        valid_NL, train_NL = canvases_NL[: args.valid].long(), canvases_NL[args.valid :]
        torch.manual_seed(args.seed)
        model = build_model(args, tokenizer.get_vocab_size())

        def draw(generator: torch.Generator) -> Batch:
            chosen_B = torch.randint(len(train_NL), (args.batch_size,), generator=generator, device=args.device)
            return (train_NL[chosen_B].long(),)

        def noise(batch: Batch, generator: torch.Generator) -> Batch:
            return mask_tokens(*batch, model.mask_token_id, generator)

        super().__init__(args, model, masked_loss, noise, draw, [(x,) for x in valid_NL.split(500)])
        parameters = sum(p.numel() for p in model.parameters())
        print(f"{parameters / 1e6:.2f} M parameters, {len(train_NL)} training molecules", flush=True)


def sample(args: argparse.Namespace) -> list[str]:
    """Molecules drawn by one token a call, also written to `training_samples.smi`."""
    pipe = MaskedDiffusionPipeline.from_pretrained(str(args.output_dir)).to(args.device)
    pipe.set_progress_bar_config(disable=True)
    strings, generator = [], torch.Generator(args.device).manual_seed(args.seed)
    while len(strings) < args.samples:
        count = min(1000, args.samples - len(strings))
        out = pipe(num_samples=count, num_inference_steps=args.length, generator=generator)
        strings += out.texts or []
    (args.output_dir / "training_samples.smi").write_text("\n".join(strings) + "\n")
    return strings


def judge(strings: list[str], train: list[str]) -> dict[str, float]:
    """Shares of valid, unique (among the valid) and novel (among the unique) molecules; nothing without rdkit."""
    try:
        from rdkit import Chem, RDLogger  # pyright: ignore[reportMissingImports]
    except ImportError:
        print("rdkit is not installed: samples are not judged.", flush=True)
        return {}
    RDLogger.DisableLog("rdApp.*")  # pyright: ignore[reportAttributeAccessIssue]
    molecules = [Chem.MolFromSmiles(string) if string else None for string in strings]
    valid = [Chem.MolToSmiles(molecule) for molecule in molecules if molecule is not None]
    unique, known = set(valid), set(train)
    shares = {"valid": len(valid) / len(strings), "unique": len(unique) / max(1, len(valid))}
    return shares | {"novel": len(unique - known) / max(1, len(unique))}


def write_card(args: argparse.Namespace) -> None:
    summary = json.loads((args.output_dir / "training_summary.json").read_text())
    strings, train = sample(args), read_lines(args.train)
    shares = judge(strings, train)
    print(json.dumps({"samples": len(strings), **shares, "examples": strings[:8]}), flush=True)
    quality = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
    quality = f"\n- One token a call, {len(strings)} samples, temperature 1 (rdkit): {quality}." if quality else ""
    card = f"""---
license: apache-2.0
tags: [masked-diffusion, radd, molecules, smiles]
---

# {args.output_dir.name}

RADD masked diffusion model of {summary["parameters"] / 1e6:.2f} M parameters: drug-like molecules as SMILES strings.

- Data: {args.data_note}
  {len(train)} molecules, of which {args.valid} are held out of training.
- Tokenizer: the usual SMILES pattern, then `{END}` and `{PADDING}`, which are learned. Length {args.length}.
{training_lines(summary, args.length)}
- Made by `examples/train_molecules.py`.{quality}
"""
    (args.output_dir / "README.md").write_text(card)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="SMILES strings, .smi or .smi.xz")
    parser.add_argument(
        "--data-note", default="MOSES benchmark (drug-like molecules from ZINC, MIT licence).", help="for the card"
    )
    parser.add_argument("--length", type=int, default=56)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--valid", type=int, default=5000, help="molecules held out")
    parser.add_argument("--samples", type=int, default=1000, help="to judge the model by")
    parser.add_argument("--judge", action="store_true", help="no training: sample, judge and write the card")
    add_arguments(parser, batch_size=64, steps=1_000_000)
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    if not args.judge:
        trainer = MoleculeTrainer(args)
        trainer.run()
        trainer.export()
    write_card(args)


if __name__ == "__main__":
    main()
